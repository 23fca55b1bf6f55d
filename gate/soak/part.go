// Package soak decides how many nodes may be in soak at a time: the exposure. Every node
// soaks in full; how many do so at once grows with the evidence that others have soaked
// what a node would run.
//
// Its invariant: two nodes on something that nobody has soaked are never in soak together
// by its leave, and what was evidence against a part never becomes evidence for it.
//
// It is pure: part.go says what is soaked, node.go what is known of a node, rule.go what
// the operator allows, and standing.go counts and judges. The step readySoak, the turn and
// the forecast share it.
package soak

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// Part is one name and version that a boot brings into effect on a node, as a short hash:
// the names and versions of a node would be a list of its vulnerabilities.
type Part string

// Unknown is the part of a node of which not everything is known that it runs, or would
// run. Nobody ever soaks it, so it counts as new always.
const Unknown Part = "?"

// The bounds of a list of parts in a record.
const (
	MaxParts     = 64
	maxPartsText = 1 << 10
)

var partFormat = regexp.MustCompile(`^([0-9a-f]{12}|\?)$`)

// NewPart returns the part of a name and its version. One without either is Unknown.
func NewPart(name, version string) Part {
	if name == "" || version == "" {
		return Unknown
	}
	sum := sha256.Sum256([]byte(name + "=" + version))
	return Part(hex.EncodeToString(sum[:6]))
}

// Names of the parts that a Node's status tells.
const (
	KernelName  = "kernel"
	BuildName   = "kernel-build"
	ImageName   = "os-image"
	RuntimeName = "container-runtime"
	KubeletName = "kubelet"
)

// Sorted returns the parts sorted, each once; of more than MaxParts the first, and Unknown,
// because the rest is not known to whoever reads them. Nil stays nil.
func Sorted(parts []Part) []Part {
	if parts == nil {
		return nil
	}
	parts = slices.Compact(slices.Sorted(slices.Values(parts)))
	if len(parts) > MaxParts {
		parts = append(slices.DeleteFunc(parts[:MaxParts-1], func(p Part) bool { return p == Unknown }), Unknown)
		slices.Sort(parts)
	}
	return slices.Clip(parts)
}

// ParseParts reads what PutParts wrote. An empty text is no list, which is not an empty
// one; what cannot be read is Unknown.
func ParseParts(text string) []Part {
	if text == "" {
		return nil
	}
	if len(text) > maxPartsText {
		return []Part{Unknown}
	}
	var parts []Part
	for word := range strings.SplitSeq(text, ",") {
		part := Part(word)
		if !partFormat.MatchString(word) {
			part = Unknown
		}
		parts = append(parts, part)
	}
	return Sorted(parts)
}

// PutParts writes the parts.
func PutParts(parts []Part) string {
	words := make([]string, 0, len(parts))
	for _, p := range Sorted(parts) {
		words = append(words, string(p))
	}
	return strings.Join(words, ",")
}
