package controlplane

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd/api"
)

// ServiceAccountKubeconfig writes a kubeconfig with a token of an existing ServiceAccount, good for two hours, and
// returns its path. With it a test has the permissions of the product's own manifests and no others.
func (cp *ControlPlane) ServiceAccountKubeconfig(ctx context.Context, namespace, name string) (string, error) {
	return cp.tokenKubeconfig(ctx, namespace, name, nil)
}

// PodKubeconfig is ServiceAccountKubeconfig with the token that a kubelet mounts into the pod: it names the pod and the
// pod's node.
func (cp *ControlPlane) PodKubeconfig(ctx context.Context, pod *corev1.Pod) (string, error) {
	return cp.tokenKubeconfig(ctx, pod.Namespace, pod.Spec.ServiceAccountName, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
	})
}

func (cp *ControlPlane) tokenKubeconfig(ctx context.Context, namespace, name string, bound *authenticationv1.BoundObjectReference) (string, error) {
	seconds := int64(2 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds, BoundObjectRef: bound}}
	token, err := cp.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("requesting a token for service account %s/%s: %w", namespace, name, err)
	}
	file := fmt.Sprintf("%s.%s.kubeconfig", namespace, name)
	if bound != nil {
		file = bound.Name + "." + file
	}
	path := cp.path(file)
	return path, cp.writeKubeconfig(path, namespace, &api.AuthInfo{Token: token.Status.Token})
}
