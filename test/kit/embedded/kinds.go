package embedded

import (
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

// Object is an object of one of the kinds.
type Object interface {
	runtime.Object
	metav1.Object
}

// kind is a kind of object that the server keeps.
type kind struct {
	schema.GroupVersionKind
	resource   string
	namespaced bool
	// fields adds what a field selector may ask for, beside the name and the namespace. It may be nil.
	fields func(Object, fields.Set)
}

// kinds is all that the server keeps. A new one is a line here, and one in newScheme if its group is new.
var kinds = []*kind{
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"), resource: "nodes",
		fields: func(o Object, set fields.Set) {
			set["spec.unschedulable"] = strconv.FormatBool(o.(*corev1.Node).Spec.Unschedulable)
		},
	},
	{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), resource: "pods", namespaced: true,
		fields: func(o Object, set fields.Set) {
			pod := o.(*corev1.Pod)
			set["spec.nodeName"], set["status.phase"] = pod.Spec.NodeName, string(pod.Status.Phase)
		},
	},
	{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("DaemonSet"), resource: "daemonsets", namespaced: true},
	{GroupVersionKind: coordinationv1.SchemeGroupVersion.WithKind("Lease"), resource: "leases", namespaced: true},
	{GroupVersionKind: policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), resource: "poddisruptionbudgets", namespaced: true},
}

// selectable is what a field selector sees of the object.
func (k *kind) selectable(o Object) fields.Set {
	set := fields.Set{"metadata.name": o.GetName()}
	if k.namespaced {
		set["metadata.namespace"] = o.GetNamespace()
	}
	if k.fields != nil {
		k.fields(o, set)
	}
	return set
}

func (k *kind) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.resource}
}

// scheme knows the kinds, and codecs write and read them as JSON, as YAML and as protobuf.
var (
	scheme = newScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	// Status and the like are of no group, and of version v1.
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{metav1.AddMetaToScheme, corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, policyv1.AddToScheme} {
		utilruntime.Must(add(s))
	}
	return s
}

// kindOf returns the kind of the object, and nil if the server does not keep it.
func kindOf(o runtime.Object) *kind {
	gvks, _, err := scheme.ObjectKinds(o)
	if err != nil {
		return nil
	}
	for _, k := range kinds {
		if k.GroupVersionKind == gvks[0] {
			return k
		}
	}
	return nil
}
