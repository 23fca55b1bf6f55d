package checks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

// What an expression may cost. The units are those of CEL, about one for each
// step. It is counted as the expression runs: objects have no known size, so
// that an estimate beforehand would refuse every loop over a field.
const (
	costLimit = 1_000_000
	// maxExpression is in characters.
	maxExpression = 4096
	// interruptAfter is how many rounds of a loop run between two looks at the
	// context.
	interruptAfter = 100
	// maxRange is the longest list that lists.range makes.
	maxRange = 10_000
)

// The variables of an expression.
const (
	objectVariable = "object"
	nowVariable    = "now"
)

// language is CEL as the expressions may use it. It is made when the first
// expression is compiled, and then shared.
var language = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable(objectVariable, cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable(nowVariable, cel.TimestampType),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ExtendedValidations(),
		ext.Bindings(), ext.Strings(), ext.Lists(ext.ListsMaxRangeSize(maxRange)), ext.Sets(), ext.Math(), ext.Regex(), ext.TwoVarComprehensions(),
		quantities,
	)
})

// expression is a compiled expression over one object.
type expression struct {
	program cel.Program
	// reads are the fields of the object that it reads, in its own order.
	reads []field
}

// compile returns the expression, or every mistake in it, each with the line
// and a caret below the column. A result that is not known to be true or false
// is a mistake: a field may be anything, and is compared.
func compile(text string) (*expression, []error) {
	env, err := language()
	if err != nil {
		return nil, []error{err}
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, pointed(text, issues.Errors())
	}
	native := checked.NativeRep()
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		message := "the result must be true or false, and is of type " + cel.FormatCELType(t)
		if t.IsExactType(cel.DynType) {
			message = "the result must be true or false, and a field may be anything: compare it, as in object.spec.paused == false"
		}
		return nil, pointed(text, []*common.Error{{Location: native.SourceInfo().GetStartLocation(native.Expr().ID()), Message: message}})
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit), cel.InterruptCheckFrequency(interruptAfter))
	if err != nil {
		return nil, []error{err}
	}
	return &expression{program, fieldsRead(ast.NavigateAST(native))}, nil
}

// maxMistakes bounds what one slip of the keyboard can bring on.
const maxMistakes = 5

// pointed formats the mistakes, each with its line of the text and a caret.
func pointed(text string, mistakes []*common.Error) []error {
	lines := strings.Split(text, "\n")
	var out []error
	for _, m := range mistakes[:min(len(mistakes), maxMistakes)] {
		message := strings.Join(strings.Fields(strings.ReplaceAll(m.Message, " (in container '')", "")), " ")
		line, column := m.Location.Line(), max(0, m.Location.Column())
		if line < 1 || line > len(lines) {
			out = append(out, errors.New(message))
			continue
		}
		shown := []rune(strings.Map(printable, lines[line-1]))
		margin := slices.Clone(shown[:min(column, len(shown))])
		for i, r := range margin {
			if r != '\t' {
				margin[i] = ' '
			}
		}
		out = append(out, fmt.Errorf("line %d, column %d: %s\n    %s\n    %s^", line, column+1, message, string(shown), string(margin)))
	}
	return out
}

// printable replaces what would move a terminal's cursor.
func printable(r rune) rune {
	if r != '\t' && !unicode.IsGraphic(r) {
		return ' '
	}
	return r
}

// Why an expression has no result.
var errCost = fmt.Errorf("it took more than %d steps", costLimit)

// absentError names a field that the expression reads and the object lacks.
type absentError struct{ field string }

func (e absentError) Error() string { return "no field " + e.field }

// holds evaluates the expression for one object. It does not change the object.
func (e *expression) holds(ctx context.Context, object map[string]any, now time.Time) (bool, error) {
	result, _, err := e.program.ContextEval(ctx, map[string]any{objectVariable: object, nowVariable: now})
	if err == nil {
		holds, ok := result.Value().(bool)
		if !ok {
			return false, fmt.Errorf("the result is %v, neither true nor false", result.Type())
		}
		return holds, nil
	}
	var cancelled interpreter.EvalCancelledError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded:
		return false, errCost
	}
	if key, ok := strings.CutPrefix(err.Error(), "no such key: "); ok {
		return false, absentError{e.pathTo(object, key)}
	}
	return false, err
}

// pathTo returns the path of the field whose last key, or that of a field above
// it, the object lacks; the key alone where the expression computed it.
func (e *expression) pathTo(object map[string]any, key string) string {
	for _, f := range e.reads {
		for i := range f {
			if _, ok := f[:i+1].of(object); !ok {
				if fmt.Sprint(f[i]) == key {
					return f[:i+1].String()
				}
				break
			}
		}
	}
	return key
}

// field is a path into an object: each part is the key of a map, a string, or
// the index of a list, an int64.
type field []any

// String returns the path as an expression has it, without the variable.
func (f field) String() string {
	var b strings.Builder
	for _, part := range f {
		switch part := part.(type) {
		case int64:
			fmt.Fprintf(&b, "[%d]", part)
		case string:
			switch {
			case !plain.MatchString(part):
				fmt.Fprintf(&b, "[%s]", strconv.Quote(part))
			case b.Len() > 0:
				b.WriteString("." + part)
			default:
				b.WriteString(part)
			}
		}
	}
	return b.String()
}

// plain is a key that needs no quotes.
var plain = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// of returns the field's value, and whether the value has it.
func (f field) of(value any) (any, bool) {
	for _, part := range f {
		switch container := value.(type) {
		case map[string]any:
			key, isKey := part.(string)
			below, ok := container[key]
			if !isKey || !ok {
				return nil, false
			}
			value = below
		case []any:
			i, isIndex := part.(int64)
			if !isIndex || i < 0 || i >= int64(len(container)) {
				return nil, false
			}
			value = container[i]
		default:
			return nil, false
		}
	}
	return value, true
}

// fieldsRead returns the fields of the object that are read below e: the
// longest paths with constant keys, each once.
func fieldsRead(e ast.NavigableExpr) []field {
	var fields []field
	seen := map[string]bool{}
	var visit func(ast.NavigableExpr)
	visit = func(e ast.NavigableExpr) {
		if f, ok := fieldOf(e); ok {
			if name := f.String(); !seen[name] {
				seen[name] = true
				fields = append(fields, f)
			}
			return
		}
		for _, child := range e.Children() {
			visit(child)
		}
	}
	visit(e)
	return fields
}

// fieldOf returns the path that e is, if it is nothing but one.
func fieldOf(e ast.Expr) (field, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return nil, e.AsIdent() == objectVariable
	case ast.SelectKind:
		above, ok := fieldOf(e.AsSelect().Operand())
		return append(above, e.AsSelect().FieldName()), ok
	case ast.CallKind:
		call := e.AsCall()
		switch call.FunctionName() {
		case operators.Index, operators.OptIndex, operators.OptSelect:
			above, ok := fieldOf(call.Args()[0])
			if !ok || call.Args()[1].Kind() != ast.LiteralKind {
				return nil, false
			}
			switch part := call.Args()[1].AsLiteral().Value().(type) {
			case string, int64:
				return append(above, part), true
			}
		}
	}
	return nil, false
}
