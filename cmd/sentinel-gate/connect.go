package main

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// defaultNamespace is where chart and manifests put the gates.
const defaultNamespace = "sentinel-gate"

// connect prepares the clients; it sends nothing yet.
func connect(f flags) (*cluster.Cluster, error) {
	var missing []error
	if f.namespace == "" && f.kubeconfig != "" && (f.once || f.verify || f.forecast) { // somebody looks from outside
		f.namespace = defaultNamespace
	}
	if f.nodeName == "" && !f.forecast {
		missing = append(missing, errors.New("the node's name is not known: set --node-name or NODE_NAME (in a pod from fieldRef spec.nodeName)"))
	}
	if f.namespace == "" {
		missing = append(missing, errors.New("the gate's namespace is not known: set --namespace or POD_NAMESPACE (in a pod from fieldRef metadata.namespace)"))
	}
	config, err := restConfig(f.kubeconfig)
	if err = errors.Join(append(missing, err)...); err != nil {
		return nil, err
	}
	config.UserAgent = "sentinel-gate/" + buildVersion()
	reads, err := cluster.New(config, f.namespace, f.nodeName)
	if err != nil {
		return nil, fmt.Errorf("preparing the API server's client: %w", err)
	}
	return reads, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("finding the API server from inside a pod: %w; outside of one, set --kubeconfig", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig: %w", err)
	}
	return config, nil
}
