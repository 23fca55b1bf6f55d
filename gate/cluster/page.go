package cluster

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// page is how many objects one request lists: it bounds what is in memory at
	// once in a large cluster.
	page = 500
	// perPage is how long one request may take. Whoever asks bounds the listing.
	perPage = 30 * time.Second
	// unpaged is a limit that no listing reaches: the whole of it in one answer.
	unpaged = -1
)

// Pages calls each with every page of a listing.
func Pages[L metav1.ListInterface](ctx context.Context, options metav1.ListOptions, fetch func(context.Context, metav1.ListOptions) (L, error), each func(L)) error {
	switch options.Limit {
	case 0:
		options.Limit = page
	case unpaged:
		options.Limit = 0
	}
	for {
		ctx, cancel := context.WithTimeout(ctx, perPage)
		list, err := fetch(ctx, options)
		cancel()
		if err != nil {
			return err
		}
		each(list)
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}
