package checks

import rbacv1 "k8s.io/api/rbac/v1"

// Rules of the reads that several types share.
var (
	readNodes      = permit("", "nodes", "list", "watch")
	readPods       = permit("", "pods", "list", "watch")
	readDaemonSets = permit("apps", "daemonsets", "list")
)

func permit(group, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
}
