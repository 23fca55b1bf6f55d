package cluster

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Client asks for the objects of one type. Its methods are those of client-go's
// typed clients, which cannot be used here: they bring along the types of every
// group of the API, three times over. client-go's own generic client
// (k8s.io/client-go/gentype) shares a package with its fakes, and brings along
// OpenAPI.
type Client[O object, L runtime.Object] struct {
	rest                rest.Interface
	resource, namespace string // no namespace: all, or the resource is in none
	newObject           func() O
	newList             func() L
}

// object is what all types of the API are.
type object interface {
	metav1.Object
	runtime.Object
}

func newClient[O, L any, P interface {
	*O
	object
}, Q interface {
	*L
	runtime.Object
}](client rest.Interface, resource, namespace string) *Client[P, Q] {
	return &Client[P, Q]{client, resource, namespace, func() P { return new(O) }, func() Q { return new(L) }}
}

func (c *Client[O, L]) to(request *rest.Request) *rest.Request {
	return request.NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.resource)
}

// Get reads one object.
func (c *Client[O, L]) Get(ctx context.Context, name string, options metav1.GetOptions) (O, error) {
	return c.result(ctx, c.to(c.rest.Get()).Name(name).VersionedParams(&options, parameters))
}

// List reads one page.
func (c *Client[O, L]) List(ctx context.Context, options metav1.ListOptions) (L, error) {
	list := c.newList()
	err := c.to(c.rest.Get()).VersionedParams(&options, parameters).Do(ctx).Into(list)
	return list, err
}

// ListMetadata reads one page of names and labels alone.
func (c *Client[O, L]) ListMetadata(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	list := new(metav1.PartialObjectMetadataList)
	err := c.to(c.rest.Get()).SetHeader("Accept", metadataOnly).VersionedParams(&options, parameters).Do(ctx).Into(list)
	return list, err
}

const metadataOnly = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// Watch begins a watch.
func (c *Client[O, L]) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return c.to(c.rest.Get()).VersionedParams(&options, parameters).Watch(ctx)
}

// Create makes the object, and returns it as the API server has it.
func (c *Client[O, L]) Create(ctx context.Context, object O, options metav1.CreateOptions) (O, error) {
	return c.result(ctx, c.to(c.rest.Post()).VersionedParams(&options, parameters).Body(object))
}

// Update writes the object, and returns it as the API server has it. It fails
// where the object has changed since it was read.
func (c *Client[O, L]) Update(ctx context.Context, object O, options metav1.UpdateOptions) (O, error) {
	return c.result(ctx, c.to(c.rest.Put()).Name(object.GetName()).VersionedParams(&options, parameters).Body(object))
}

func (c *Client[O, L]) result(ctx context.Context, request *rest.Request) (O, error) {
	object := c.newObject()
	err := request.Do(ctx).Into(object)
	return object, err
}
