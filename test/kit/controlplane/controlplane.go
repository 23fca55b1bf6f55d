// Package controlplane starts a real etcd and a real kube-apiserver for a test, and stands in for the kubelets. What
// the product reads in a test is therefore what an API server made of it: defaulted, validated, authorised, with
// resource versions that mean something. Nothing here outlives the test binary, not even one killed with SIGKILL.
package controlplane

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

// startTimeout is generous: it is for a machine that runs several control planes at once, on one core.
const startTimeout = 2 * time.Minute

// Options are what tests differ in. The zero value is an API server without controllers.
type Options struct {
	// Dir keeps certificates, logs and data. It is made, and removed by Stop, if empty.
	Dir string
	// Progress hears about builds, which take minutes the first time. It may be nil.
	Progress io.Writer
	// ControllerManager marks a node Unknown 5 to 6 s after its last heartbeat, unless its flags say otherwise.
	ControllerManager      bool
	ControllerManagerFlags []string
	Scheduler              bool
	// APIServerFlags come after the harness's own, and win.
	APIServerFlags []string
	// Oldest takes the API server of the oldest supported minor; the rest stays. Its build is part of the start, unless it
	// was built before.
	Oldest bool
	// Audit records every request, for Requests.
	Audit bool
	// Kubelets are real: they need pods with tokens, and nodes that nothing is put on before they are Ready.
	Kubelets bool
}

// ControlPlane is a running control plane. Its methods may be used concurrently, except those that start and stop.
type ControlPlane struct {
	options   Options
	dir       string
	temporary bool
	binary    string
	config    *rest.Config

	http    *http.Client
	client  kubernetes.Interface
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper

	etcd, apiserver *Server
	controllers     []*Server
}

// module is where the version of Kubernetes is pinned, of all but the oldest API server.
const module = "test/kit/controlplane/server"

// ServerBinary builds the control plane, or finds it built, and returns its path.
func ServerBinary(ctx context.Context, progress io.Writer) (string, error) {
	return binaryOf(ctx, progress, build.Target{Title: "test control plane", Module: module, Package: ".", Name: "controlplane"})
}

// OldestAPIServerBinary builds the API server of the oldest minor of Kubernetes that the product supports, or finds it
// built, and returns its path.
func OldestAPIServerBinary(ctx context.Context, progress io.Writer) (string, error) {
	return binaryOf(ctx, progress, build.Target{
		Title: "oldest API server", Module: "test/kit/controlplane/oldest", Package: "k8s.io/kubernetes/cmd/kube-apiserver", Name: "oldest-kube-apiserver",
	})
}

// KubeletBinary builds the kubelet of the same version as the control plane, or finds it built, and returns its path.
func KubeletBinary(ctx context.Context, progress io.Writer) (string, error) {
	return binaryOf(ctx, progress, build.Target{Title: "kubelet", Module: module, Package: "k8s.io/kubernetes/cmd/kubelet"})
}

// binaryOf builds a target that is, or contains, an API server.
func binaryOf(ctx context.Context, progress io.Writer, target build.Target) (string, error) {
	root, err := build.Root()
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(root, target.Module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the version of Kubernetes: %w", err)
	}
	version := regexp.MustCompile(`k8s\.io/kubernetes (v(\d+)\.(\d+)\S*)`).FindSubmatch(mod)
	if version == nil {
		return "", fmt.Errorf("reading the version of Kubernetes: none in %s/go.mod", target.Module)
	}
	// Without these an API server calls itself v0.0.0-master.
	const pkg = "k8s.io/component-base/version"
	target.LDFlags = fmt.Sprintf("-X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
		pkg, version[1], version[2], version[3])
	return build.Binary(ctx, progress, target)
}

// Start returns once the API server is ready and has made the namespaces that it always makes. The context bounds the
// start, not the life, of the control plane: call Stop.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	binary, err := ServerBinary(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	apiserver := binary
	if options.Oldest {
		if apiserver, err = OldestAPIServerBinary(ctx, options.Progress); err != nil {
			return nil, err
		}
	}
	// The build is not part of the start.
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cp := &ControlPlane{options: options, dir: options.Dir, binary: binary}
	if cp.dir == "" {
		cp.temporary = true
		if cp.dir, err = os.MkdirTemp("", "sentinel-gate-controlplane-"); err != nil {
			return nil, fmt.Errorf("starting the control plane: %w", err)
		}
	}
	cp.etcd, cp.apiserver = cp.etcdServer(), cp.apiServer(apiserver)
	if err := cp.start(ctx); err != nil {
		cp.Stop()
		return nil, fmt.Errorf("starting the control plane: %w", err)
	}
	return cp, nil
}

func (cp *ControlPlane) start(ctx context.Context) error {
	if err := cp.makeCertificates(); err != nil {
		return err
	}
	if err := cp.etcd.Start(ctx); err != nil {
		return err
	}
	if err := cp.StartAPIServer(ctx); err != nil {
		return err
	}
	for _, namespace := range []string{"default", "kube-system", "kube-node-lease"} {
		if err := Poll(ctx, func() error {
			_, err := cp.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			return err
		}); err != nil {
			return fmt.Errorf("waiting for namespace %s: %w", namespace, err)
		}
	}
	return cp.startControllers(ctx)
}

func (cp *ControlPlane) etcdServer() *Server {
	return &Server{
		Name: "etcd", Binary: cp.binary, Log: cp.path("etcd.log"), Ready: "/health", Timeout: startTimeout,
		Args: func(port int) ([]string, error) {
			peer, err := FreePort()
			if err != nil {
				return nil, err
			}
			// The data of a member that never listened names its old peer address.
			if err := os.RemoveAll(cp.path("etcd")); err != nil {
				return nil, err
			}
			client, peerURL := fmt.Sprintf("http://127.0.0.1:%d", port), fmt.Sprintf("http://127.0.0.1:%d", peer)
			return []string{
				"etcd", "--name=default", "--data-dir=" + cp.path("etcd"), "--unsafe-no-fsync", "--quota-backend-bytes=4294967296",
				"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
				"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL, "--initial-cluster=default=" + peerURL,
			}, nil
		},
	}
}

// apiServer is below a supervisor, because a paused one could not notice the end of the test itself.
func (cp *ControlPlane) apiServer(command string) *Server {
	return &Server{
		Name: "kube-apiserver", Binary: cp.binary, Command: command, Log: cp.path("kube-apiserver.log"),
		Scheme: "https", Ready: "/readyz", Timeout: startTimeout,
		Args: func(port int) ([]string, error) {
			if cp.config == nil || cp.config.Host != cp.URL() {
				if err := cp.configure(); err != nil {
					return nil, err
				}
			}
			cp.apiserver.Client = cp.http
			return cp.apiServerFlags(port)
		},
	}
}

func (cp *ControlPlane) apiServerFlags(port int) ([]string, error) {
	flags := []string{
		"kube-apiserver",
		"--etcd-servers=" + cp.etcd.URL(),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
		"--tls-cert-file=" + cp.path("server.crt"), "--tls-private-key-file=" + cp.path("server.key"),
		"--client-ca-file=" + cp.CAFile(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + cp.path("service-account.key"),
		"--service-account-signing-key-file=" + cp.path("service-account.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
	}
	if !cp.options.Kubelets {
		// ServiceAccount refuses pods until a controller has made their account. TaintNodesByCondition taints each new
		// node until a controller has looked at it. Mostly no controller runs.
		flags = append(flags, "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition")
	}
	if cp.options.Audit {
		audit, err := cp.auditFlags()
		if err != nil {
			return nil, err
		}
		flags = append(flags, audit...)
	}
	flags = append(flags, cp.options.APIServerFlags...)
	if cp.options.Oldest {
		flags = flags[1:] // a command of its own
	}
	return flags, nil
}

// StartAPIServer starts the API server, after StopAPIServer on the same port, and returns once it is ready.
func (cp *ControlPlane) StartAPIServer(ctx context.Context) error { return cp.apiserver.Start(ctx) }

func (cp *ControlPlane) startControllers(ctx context.Context) error {
	if cp.options.ControllerManager {
		if err := cp.startController(ctx, "kube-controller-manager", append([]string{
			"--use-service-account-credentials=true", "--root-ca-file=" + cp.CAFile(),
			"--service-account-private-key-file=" + cp.path("service-account.key"),
			"--node-monitor-period=1s", "--node-monitor-grace-period=5s",
		}, cp.options.ControllerManagerFlags...)); err != nil {
			return err
		}
	}
	if cp.options.Scheduler {
		return cp.startController(ctx, "kube-scheduler", nil)
	}
	return nil
}

func (cp *ControlPlane) startController(ctx context.Context, name string, flags []string) error {
	kubeconfig := cp.path(name + ".kubeconfig")
	controller := &Server{
		Name: name, Binary: cp.binary, Log: cp.path(name + ".log"), Scheme: "https", Ready: "/healthz", Client: cp.http, Timeout: startTimeout,
		Args: func(port int) ([]string, error) {
			return append([]string{
				name, "--kubeconfig=" + kubeconfig,
				"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
				"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
				"--tls-cert-file=" + cp.path("server.crt"), "--tls-private-key-file=" + cp.path("server.key"),
				"--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000",
			}, flags...), nil
		},
	}
	cp.controllers = append(cp.controllers, controller)
	return controller.Start(ctx)
}

// Stop ends all processes and waits for them. It removes the directory unless the caller chose it.
func (cp *ControlPlane) Stop() {
	for _, controller := range cp.controllers {
		controller.Kill()
	}
	cp.StopAPIServer()
	cp.etcd.Kill()
	if cp.temporary {
		_ = os.RemoveAll(cp.dir)
	}
}

// StopAPIServer kills the API server, as a crash does: connections are reset, then refused. etcd keeps the data.
func (cp *ControlPlane) StopAPIServer() { cp.apiserver.Kill() }

// PauseAPIServer makes the API server hang: the kernel accepts connections, and nobody answers.
func (cp *ControlPlane) PauseAPIServer() error { return cp.apiserver.Pause() }

// ResumeAPIServer ends a pause.
func (cp *ControlPlane) ResumeAPIServer() error { return cp.apiserver.Resume() }

// APIServerPID is the process to measure.
func (cp *ControlPlane) APIServerPID() int { return cp.apiserver.PID() }

// Config returns the credentials of an administrator, without client-side rate limit.
func (cp *ControlPlane) Config() *rest.Config { return rest.CopyConfig(cp.config) }

// Client returns a client with the credentials of Config.
func (cp *ControlPlane) Client() kubernetes.Interface { return cp.client }

// Kubeconfig is the path of the administrator's kubeconfig.
func (cp *ControlPlane) Kubeconfig() string { return cp.path("admin.kubeconfig") }

// URL is where the API server listens, now and after a restart.
func (cp *ControlPlane) URL() string { return cp.apiserver.URL() }

// CAFile is the path of the certificate authority that signed the API server's certificate.
func (cp *ControlPlane) CAFile() string { return cp.path("ca.crt") }

// ServerBinary is the path of the binary that this control plane runs.
func (cp *ControlPlane) ServerBinary() string { return cp.binary }

// Kubectl returns a command that runs a real kubectl with the given kubeconfig.
func (cp *ControlPlane) Kubectl(ctx context.Context, kubeconfig string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, cp.binary, append([]string{"kubectl", "--kubeconfig=" + kubeconfig}, args...)...)
}

func (cp *ControlPlane) path(name string) string { return filepath.Join(cp.dir, name) }
