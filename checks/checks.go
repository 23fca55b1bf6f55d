// Package checks has the types of check that come with the gate: one file per
// type, beside its test, and a page of the same name in docs/checks. A check
// reads the cluster afresh in every evaluation; what it makes of what it read
// is a pure function.
package checks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// types are the known types of check. To add one: a file, a line here, and its
// page in docs/checks.
var types = map[string]checkType{
	"alerts":             {gate.ClusterScope, typed(alertsDefaults, newAlerts)},
	"controlPlaneQuorum": {gate.NodeScope, typed(controlPlaneQuorumDefaults, newControlPlaneQuorum)},
	"cordons":            {gate.ClusterScope, typed(cordonsDefaults, newCordons)},
	"disruptionBudgets":  {gate.NodeScope, typed(disruptionBudgetsDefaults, newDisruptionBudgets)},
	"http":               {gate.ClusterScope, typed(httpDefaults, newHTTP)},
	"headroom":           {gate.NodeScope, typed(headroomDefaults, newHeadroom)},
	"nodePressure":       {gate.ClusterScope, typed(nodePressureDefaults, newNodePressure)},
	"nodesReady":         {gate.ClusterScope, typed(nodesReadyDefaults, newNodesReady)},
	"podsReady":          {gate.ClusterScope, typed(podsReadyDefaults, newPodsReady)},
	"promql":             {gate.ClusterScope, typed(promQLDefaults, newPromQL)},
	"readySoak":          {gate.ClusterScope, typed(readySoakDefaults, newReadySoak)},
	"resource":           {gate.ClusterScope, typed(resourceDefaults, newResource)},
	"schedule":           {gate.ClusterScope, typed(scheduleDefaults, newSchedule)},
}

type checkType struct {
	scope gate.Scope
	constructor
}

type constructor struct {
	// defaults returns the type's options, as a struct.
	defaults func() any
	build    func(options []byte, cluster *cluster.Cluster) (gate.Check, []error)
}

// typed joins a type's defaults, the strict decoding of its options over them,
// and its constructor, which validates them without asking anybody.
func typed[O any](defaults func() O, build func(O, *cluster.Cluster) (gate.Check, []error)) constructor {
	return constructor{
		defaults: func() any { return defaults() },
		build: func(options []byte, cluster *cluster.Cluster) (gate.Check, []error) {
			o := defaults()
			problems := Decode("options", options, &o)
			check, invalid := build(o, cluster)
			return check, append(problems, invalid...)
		},
	}
}

// Types returns the names of the known types, sorted.
func Types() []string { return slices.Sorted(maps.Keys(types)) }

// ScopeOf returns the scope of a known type.
func ScopeOf(typeName string) gate.Scope { return types[typeName].scope }

// Defaults returns the options of a known type, a struct, as they are where none
// is given.
func Defaults(typeName string) any { return types[typeName].defaults() }

// New returns a check of the type with its options, as JSON. The cluster is not
// asked anything yet, and may be nil where the check will not be run. All
// mistakes are returned at once.
func New(typeName string, options []byte, cluster *cluster.Cluster) (gate.Check, []error) {
	known, ok := types[typeName]
	if !ok {
		return nil, []error{fmt.Errorf("type: unknown type %q: want one of %s", typeName, strings.Join(Types(), ", "))}
	}
	return known.build(options, cluster)
}
