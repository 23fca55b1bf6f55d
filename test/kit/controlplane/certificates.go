package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// makeCertificates writes NAME.crt and NAME.key for the authority, for the servers, and for each client, and the key
// that signs the tokens of ServiceAccounts.
func (cp *ControlPlane) makeCertificates() error {
	now := time.Now()
	template := func(name string, organizations ...string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()),
			Subject:      pkix.Name{CommonName: name, Organization: organizations},
			// Tests move the clock of what they test, never by as much as this.
			NotBefore:   now.AddDate(-1, 0, 0),
			NotAfter:    now.AddDate(10, 0, 0),
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	authority := template("sentinel-gate-test")
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage |= x509.KeyUsageCertSign
	authority.ExtKeyUsage = nil
	authorityKey, err := cp.writeKey("ca")
	if err != nil {
		return err
	}
	if err := cp.writeCertificate("ca", authority, authority, authorityKey, authorityKey); err != nil {
		return err
	}
	if _, err := cp.writeKey("service-account"); err != nil {
		return err
	}

	server := template("kube-apiserver")
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
	server.DNSNames = []string{"localhost", "kubernetes.default.svc"}
	for name, leaf := range map[string]*x509.Certificate{
		"server":                  server,
		"admin":                   template("admin", "system:masters"),
		"kube-controller-manager": template("system:kube-controller-manager"),
		"kube-scheduler":          template("system:kube-scheduler"),
	} {
		key, err := cp.writeKey(name)
		if err != nil {
			return err
		}
		if err := cp.writeCertificate(name, leaf, authority, key, authorityKey); err != nil {
			return err
		}
	}
	return nil
}

func (cp *ControlPlane) writeKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("making the key of %s: %w", name, err)
	}
	return key, os.WriteFile(cp.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func (cp *ControlPlane) writeCertificate(name string, leaf, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("making the certificate of %s: %w", name, err)
	}
	return os.WriteFile(cp.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// configure writes the kubeconfig of each client, and makes the administrator's clients.
func (cp *ControlPlane) configure() error {
	for _, name := range []string{"admin", "kube-controller-manager", "kube-scheduler"} {
		if err := cp.writeKubeconfig(cp.path(name+".kubeconfig"), "", &api.AuthInfo{
			ClientCertificate: cp.path(name + ".crt"), ClientKey: cp.path(name + ".key"),
		}); err != nil {
			return err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", cp.Kubeconfig())
	if err != nil {
		return fmt.Errorf("reading %s: %w", cp.Kubeconfig(), err)
	}
	config.QPS = -1
	cp.config = config
	if cp.http, err = rest.HTTPClientFor(config); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfigAndClient(config, cp.http)
	if err != nil {
		return err
	}
	cp.client = client
	cp.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	cp.dynamic, err = dynamic.NewForConfigAndClient(config, cp.http)
	return err
}

// WriteKubeletKubeconfig writes a kubeconfig with which a node's kubelet reaches the API server at a URL. It says who it
// is as the administrator may: the API server treats it as that node all the same.
func (cp *ControlPlane) WriteKubeletKubeconfig(path, server, node string) error {
	return cp.writeKubeconfigFor(server, path, "", &api.AuthInfo{
		ClientCertificate: cp.path("admin.crt"), ClientKey: cp.path("admin.key"),
		Impersonate: "system:node:" + node, ImpersonateGroups: []string{"system:nodes", "system:authenticated"},
	})
}

func (cp *ControlPlane) writeKubeconfig(path, namespace string, user *api.AuthInfo) error {
	return cp.writeKubeconfigFor(cp.URL(), path, namespace, user)
}

func (cp *ControlPlane) writeKubeconfigFor(server, path, namespace string, user *api.AuthInfo) error {
	kubeconfig := api.NewConfig()
	kubeconfig.Clusters["test"] = &api.Cluster{Server: server, CertificateAuthority: cp.CAFile()}
	kubeconfig.AuthInfos["test"] = user
	kubeconfig.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "test", Namespace: namespace}
	kubeconfig.CurrentContext = "test"
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
