package cluster

import (
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// The types that are read, and no others.
var (
	scheme     = newScheme()
	codecs     = serializer.NewCodecFactory(scheme)
	parameters = runtime.NewParameterCodec(scheme)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for version, types := range map[schema.GroupVersion][]runtime.Object{
		corev1.SchemeGroupVersion:         {&corev1.Node{}, &corev1.NodeList{}, &corev1.Pod{}, &corev1.PodList{}},
		appsv1.SchemeGroupVersion:         {&appsv1.DaemonSet{}, &appsv1.DaemonSetList{}},
		coordinationv1.SchemeGroupVersion: {&coordinationv1.Lease{}, &coordinationv1.LeaseList{}},
		policyv1.SchemeGroupVersion:       {&policyv1.PodDisruptionBudget{}, &policyv1.PodDisruptionBudgetList{}},
	} {
		s.AddKnownTypes(version, types...)
		metav1.AddToGroupVersion(s, version) // options, watch events, and the status that an error is
	}
	if err := metav1.AddMetaToScheme(s); err != nil { // lists of metadata alone
		panic(err)
	}
	return s
}
