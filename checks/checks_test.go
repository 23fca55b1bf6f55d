package checks

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// now is the API server's time in the tables.
var now = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// wanted is what a table expects of a pure function. Where the message is
// empty it is not compared.
type wanted struct {
	verdict gate.Verdict
	reason  string
	message string
}

func (w wanted) compare(t *testing.T, got gate.Result) {
	t.Helper()
	if got.Verdict != w.verdict || got.Reason != w.reason {
		t.Errorf("got %s %s, want %s %s: %s", got.Verdict, got.Reason, w.verdict, w.reason, got.Message)
	}
	if w.message != "" && got.Message != w.message {
		t.Errorf("message\n got %s\nwant %s", got.Message, w.message)
	}
}

// compareMistakes compares what a constructor refuses with the wanted text: it
// returns a check if that is empty, and only then.
func compareMistakes(t *testing.T, check gate.Check, problems []error, want string) {
	t.Helper()
	got := ""
	if err := errors.Join(problems...); err != nil {
		got = err.Error()
	}
	if got != want || (check == nil) != (want != "") {
		t.Errorf("got %v and\n%s\nwant\n%s", check, got, want)
	}
}

// verify and validate ask checks that can answer.
func verify(ctx context.Context, check gate.Check) (Verification, error) {
	return check.(Verifier).Verify(ctx)
}

func validate(ctx context.Context, check gate.Check) error {
	return check.(Validator).Validate(ctx)
}

func selector(t testing.TB, text string) cluster.Selector {
	t.Helper()
	var s cluster.Selector
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

func member(name string, status corev1.ConditionStatus, labels ...string) cluster.Node {
	n := cluster.Node{Name: name, Ready: status, Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

// nodesOf reads nodes that are written down as "a b! c-": with a "!" one is
// cordoned, with a "-" it is not Ready, with a "*" it is of the control plane.
func nodesOf(text string) []cluster.Node {
	var nodes []cluster.Node
	for word := range strings.FieldsSeq(text) {
		n := member(strings.TrimRight(word, "!-*"), corev1.ConditionTrue)
		n.Labels["name"] = n.Name
		n.Unschedulable = strings.Contains(word, "!")
		if strings.Contains(word, "-") {
			n.Ready = corev1.ConditionFalse
		}
		if strings.Contains(word, "*") {
			n.Labels["node-role.kubernetes.io/control-plane"] = ""
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// fieldsOf returns the names of a struct's fields in the configuration.
func fieldsOf(options any) []string {
	var fields []string
	for f := range reflect.TypeOf(options).Fields() {
		fields = append(fields, f.Tag.Get("json"))
	}
	return fields
}

func pageOf(t *testing.T, typeName string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../docs/checks", typeName+".md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryTypeHasItsPage(t *testing.T) {
	for _, typeName := range Types() {
		t.Run(typeName, func(t *testing.T) {
			text := pageOf(t, typeName)
			if !strings.HasPrefix(text, "# "+typeName+"\n") {
				t.Error("its title is not the type")
			}
			examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1)
			if !slices.ContainsFunc(examples, func(e []string) bool { return strings.Contains(e[1], "type: "+typeName+"\n") }) {
				t.Error("it has no example, in a ```yaml block, of a step of the type")
			}
			for _, field := range fieldsOf(Defaults(typeName)) {
				if !regexp.MustCompile("`" + field + "[`.]").MatchString(text) {
					t.Errorf("it does not tell of the option %s", field)
				}
			}
		})
	}
	pages, err := os.ReadDir("../docs/checks")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if name, ok := strings.CutSuffix(p.Name(), ".md"); !ok || !slices.Contains(Types(), name) {
			t.Errorf("docs/checks/%s is the page of no type", p.Name())
		}
	}
}

// reasonRow is a line of a page's table of reasons.
var reasonRow = regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (Pass|Fail|Unknown) \\|")

func TestEveryReasonIsDocumented(t *testing.T) {
	for _, typeName := range Types() {
		t.Run(typeName, func(t *testing.T) {
			inCode := reasonsIn(t, strings.ToLower(typeName)+".go")
			if typeName == "readySoak" {
				maps.Copy(inCode, reasonsIn(t, "exposure.go"))
				for _, reason := range soak.Reasons() {
					inCode[reason] = "Fail"
				}
			}
			if len(inCode) < 3 {
				t.Fatalf("only the reasons %v were found in the source: does this test still read it rightly?", inCode)
			}
			inDocs := map[string]string{}
			for _, row := range reasonRow.FindAllStringSubmatch(pageOf(t, typeName), -1) {
				inDocs[row[1]] = row[2]
			}
			if !maps.Equal(inCode, inDocs) {
				t.Errorf("reasons and their verdicts\nin the code: %v\non the page:  %v", inCode, inDocs)
			}
		})
	}
}

// reasonsIn reads the reasons, each with its verdict, out of the source of a
// check: what it hands to gate.Passed and its kin, and to the local functions
// that collect what speaks against a pass.
func reasonsIn(t *testing.T, file string) map[string]string {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{
		"gate.Passed": "Pass", "gate.Failed": "Fail", "gate.Undecided": "Unknown",
		"complain": "Fail", "problem": "Fail", "undecided": "Unknown",
	}
	reasons := map[string]string{}
	add := func(by ast.Expr, arguments []ast.Expr) {
		name := ""
		switch by := by.(type) {
		case *ast.Ident:
			name = by.Name
		case *ast.SelectorExpr:
			if x, ok := by.X.(*ast.Ident); ok {
				name = x.Name + "." + by.Sel.Name
			}
		}
		verdict, ok := verdicts[name]
		if !ok || len(arguments) == 0 {
			return
		}
		literal, ok := arguments[0].(*ast.BasicLit)
		if !ok {
			return // a variable, which one of the others has set
		}
		reason, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := reasons[reason]; ok && other != verdict {
			t.Errorf("%s has the verdicts %s and %s", reason, other, verdict)
		}
		reasons[reason] = verdict
	}
	ast.Inspect(source, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			add(n.Fun, n.Args)
		case *ast.CompositeLit:
			add(n.Type, n.Elts)
		}
		return true
	})
	return reasons
}

func TestUnknownTypeIsRefused(t *testing.T) {
	for _, name := range []string{"", "NodesReady", "nodesready", "nodesReady "} {
		check, problems := New(name, nil, nil)
		want := "type: unknown type " + strconv.Quote(name) + ": want one of " + strings.Join(Types(), ", ")
		if check != nil || len(problems) != 1 || problems[0].Error() != want {
			t.Errorf("got %v, %v\nwant %s", check, problems, want)
		}
	}
}

func TestNamesAreSortedAndFew(t *testing.T) {
	for want, n := range map[string]names{
		"":                         nil,
		"a, b":                     {"b", "a"},
		"a, b, c, d, e":            {"e", "d", "c", "b", "a"},
		"a, b, c, d, e and 2 more": {"g", "f", "e", "d", "c", "b", "a"},
	} {
		before := slices.Clone(n)
		if got := n.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !slices.Equal(before, n) {
			t.Errorf("naming %v reordered it to %v", before, n)
		}
	}
}

// Numbers agree with their nouns.
func TestNumbersAgree(t *testing.T) {
	for n, want := range map[int]string{0: "all 0 nodes are", 1: "1 node is", 2: "all 2 nodes are"} {
		if got := all(n, "node") + " " + agree(n, "is", "are"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// No message has a number of its own before a noun.
	noun := regexp.MustCompile(`%d (other )?(nodes|pods|alerts|members|budgets|rules|values|records|intervals|bytes|evictions|disruptions)\b`)
	_, files := sources(t)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && noun.MatchString(text.Value) && !plural[text.Value] {
				t.Errorf("%s: use count", text.Value)
			}
			return true
		})
	}
}

// plural are the texts whose number is never 1.
var plural = map[string]bool{
	`"none of %d other nodes is"`:        true,
	`"none of %d pods on %s would move"`: true,
	`"members are %d other nodes"`:       true,
	`"%s is one of %d members of the control plane: without it %d must be up, and never are"`: true,
	`"without %s, %d of %d members of the control plane would be up, and %d must be%s"`:       true,
	`"without %s, %d of %d members of the control plane %s up, and %d must be%s"`:             true,
	`"%s answered %s with a body of more than %d bytes, which is not read to its end"`:        true,
}

// All mistakes at once, each with its path; what is right is decoded all the
// same.
func TestDecodeTellsEveryMistake(t *testing.T) {
	type inner struct {
		Word string `json:"word"`
	}
	type outer struct {
		Number int              `json:"number"`
		Flag   bool             `json:"flag"`
		Words  []string         `json:"words"`
		Inner  inner            `json:"inner"`
		List   []inner          `json:"list"`
		Pick   cluster.Selector `json:"pick"`
		secret string
	}
	for _, c := range []struct{ name, data, want string }{
		{"nothing", ``, ``},
		{"blank", " \n", ``},
		{"null", `null`, ``},
		{"right", `{"number": 3, "flag": true, "words": ["a"], "inner": {"word": "b"}, "list": [{"word": "c"}], "pick": "a=b"}`, ``},
		{"not a mapping", `[]`, `options: must be a mapping, not []`},
		{"wrong case", `{"Number": 3}`, `options: unknown field "Number": want one of flag, inner, list, number, pick, words`},
		{"unexported", `{"secret": "x"}`, `options: unknown field "secret": want one of flag, inner, list, number, pick, words`},
		{
			"every type",
			`{"number": "3", "flag": "yes", "words": "a", "inner": "b", "list": {}, "pick": 5}`,
			`options.flag: must be true or false, not "yes"
options.inner: must be a mapping, not "b"
options.list: must be a list, not {}
options.number: must be a whole number, not "3"
options.pick: must be a string, not 5
options.words: must be a list, not "a"`,
		},
		{
			"deep",
			`{"inner": {"wrod": "b"}, "list": [{"word": "c"}, {"word": null}, {"Word": "e", "word": []}], "words": ["a", null, 5]}`,
			`options.inner: unknown field "wrod": want one of word
options.list[1].word: has no value: give one, or leave the field out
options.list[2]: unknown field "Word": want one of word
options.list[2].word: must be a string, not []
options.words[1]: has no value: give one, or leave the field out
options.words[2]: must be a string, not 5`,
		},
		{"fraction", `{"number": 1.5}`, `options.number: must be a whole number, not 1.5`},
		{"too large", `{"number": 1e+20}`, `options.number: must be a whole number, not 1e+20`},
		{"long", `{"number": "` + strings.Repeat("x", 200) + `"}`, `options.number: must be a whole number, not "` + strings.Repeat("x", 59)},
		{"its own decoder", `{"pick": "a=(b"}`, `options.pick: not a label selector: unable to parse requirement: found '(', expected: identifier`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := outer{Number: 7, secret: "kept"}
			got := ""
			if err := errors.Join(Decode("options", []byte(c.data), &o)...); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if o.secret != "kept" {
				t.Error("it wrote a field that is not the configuration's")
			}
			if c.name == "right" && (o.Number != 3 || !o.Flag || o.Words[0] != "a" || o.Inner.Word != "b" || o.List[0].Word != "c" || o.Pick.String() != "a=b") {
				t.Errorf("decoded %+v", o)
			}
			if c.name == "nothing" && o.Number != 7 {
				t.Errorf("the default is lost: %+v", o)
			}
		})
	}
}

// Without a path, as at the top of the file and of a step, the message begins
// with what is wrong.
func TestDecodeWithoutAPath(t *testing.T) {
	type inner struct {
		Word string `json:"word"`
	}
	for data, want := range map[string]string{
		`[]`: "must be a mapping, not []", `"nodes"`: `must be a mapping, not "nodes"`,
		`{"x": 1}`: `unknown field "x": want one of word`, `{"word": 1}`: "word: must be a string, not 1",
	} {
		if got := Decode("", []byte(data), &inner{}); len(got) != 1 || got[0].Error() != want {
			t.Errorf("%s: got %v, want %s", data, got, want)
		}
	}
}

// Whatever the options are, no type's constructor panics, each problem says
// where it is, and a field that does not exist is one.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `{"selector": "a in (b,c)", "minimum": 2, "maxNotReady": 1}`,
		`{"preset": "auto", "namespaces": ["a", ""], "onEveryNode": true}`, `{"preset": null}`,
		`{"duration": "1d", "gateSelector": "!x", "ignoreJoined": 1}`,
		`{"prometheus": {"url": "http://p:9090", "httpConfig": {"basic_auth": {"username": "u"}}}, "ignore": ["A.*"], "match": ["a=\"b\""], "requireFiring": "", "requireFiringAgo": "1h"}`,
		`{"apiVersion": "v1", "resource": "pods", "fieldSelector": "a=b", "minimum": 0, "expression": "object.a == 1"}`, `{"expression": "a.("}`,
		`{"prometheus": {"url": "http://p"}, "query": "up == 0", "expect": "< 5", "requireSeries": "up", "trustEmpty": true}`,
		`{"url": "https://user:secret@h/p?q", "httpConfig": {"basic_auth": {"username": "u"}}, "status": [200, 204], "body": "^ok$"}`,
		`{"alertmanager": {"url": "http://a:9093"}, "prometheus": {"url": "http://p"}, "requireFiring": "W"}`,
		`{"allow": [{"weekdays": ["monday:friday"], "times": [{"start_time": "01:00", "end_time": "05:00"}], "location": "Europe/Berlin"}], "deny": [{"months": [12]}]}`,
		`{"prometheus": {"httpConfig": [1]}, "ignore": [null, "("], "match": {"a": "b"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var object map[string]json.RawMessage
		isObject := json.Unmarshal(data, &object) == nil
		for _, typeName := range Types() {
			check, problems := New(typeName, data, nil)
			for _, p := range problems {
				if !strings.HasPrefix(p.Error(), "options") {
					t.Errorf("%s: %s does not say where it is", typeName, p)
				}
			}
			if len(problems) > 0 {
				continue
			}
			if check == nil {
				t.Errorf("%s: neither a check nor a problem", typeName)
			}
			if !isObject && len(strings.TrimSpace(string(data))) > 0 {
				t.Errorf("%s took %q for options", typeName, data)
			}
			for key := range object {
				if !slices.Contains(fieldsOf(Defaults(typeName)), key) {
					t.Errorf("%s ignored the unknown field %q", typeName, key)
				}
			}
		}
	})
}
