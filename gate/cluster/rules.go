package cluster

import rbacv1 "k8s.io/api/rbac/v1"

// What several reads must be allowed. Those that can be followed have watch
// among their verbs.
var (
	ReadNodes      = Permit("", "nodes", "list", "watch")
	ReadPods       = Permit("", "pods", "list", "watch")
	ReadDaemonSets = Permit("apps", "daemonsets", "list")
)

// Permit is the rule that permits the verbs on a resource of a group.
func Permit(group, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
}
