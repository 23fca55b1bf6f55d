package checks

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// autoPreset finds out which CNIs run.
const autoPreset = "auto"

// cnis are where the known CNIs run the pod that each node needs, as their own
// manifests, operators and charts install them.
var cnis = map[string][]place{
	"antrea":   {{"kube-system", "app=antrea,component=antrea-agent"}},
	"aws-node": {{"kube-system", "k8s-app=aws-node"}},
	"azure":    {{"kube-system", "k8s-app=azure-cns"}},
	// The operator's namespace, and the plain manifest's.
	"calico":         {{"calico-system", "k8s-app=calico-node"}, {"kube-system", "k8s-app=calico-node"}},
	"canal":          {{"kube-system", "k8s-app=canal"}},
	"cilium":         {{"kube-system", "k8s-app=cilium"}},
	"flannel":        {{"kube-flannel", "app=flannel"}, {"kube-system", "app=flannel"}},
	"kindnet":        {{"kube-system", "app=kindnet"}},
	"kube-router":    {{"kube-system", "k8s-app=kube-router"}},
	"ovn-kubernetes": {{"ovn-kubernetes", "app=ovnkube-node"}, {"openshift-ovn-kubernetes", "app=ovnkube-node"}},
	"weave":          {{"kube-system", "name=weave-net"}},
}

func cniNames() []string { return slices.Sorted(maps.Keys(cnis)) }

// detect returns the places of the known CNIs that have a DaemonSet. More than
// one is usual: Cilium chained behind another, a migration half done. All of
// them count then.
func detect(sets []appsv1.DaemonSet) []place {
	var found []place
	for _, name := range cniNames() {
		for _, p := range cnis[name] {
			if slices.ContainsFunc(sets, func(set appsv1.DaemonSet) bool { return selects(p, &set) }) {
				found = append(found, p)
			}
		}
	}
	return found
}
