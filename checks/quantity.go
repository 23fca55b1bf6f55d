package checks

import (
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
	celtypes "cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

// quantities are those functions of Kubernetes' own quantity library that a
// comparison needs, by the same names. The library itself (k8s.io/apiserver)
// is written for the older import path of cel-go, and does not fit.
var quantities = cel.Lib(quantityLibrary{})

var quantityType = cel.OpaqueType("kubernetes.Quantity")

type quantityLibrary struct{}

// CompileOptions declare and implement the functions.
func (quantityLibrary) CompileOptions() []cel.EnvOption {
	compare := func(name, overload string, result *cel.Type, of func(order int) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.MemberOverload(overload, []*cel.Type{quantityType, quantityType}, result,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val {
				x, y := a.(quantity), b.(quantity)
				return of(x.Cmp(y.Quantity))
			})))
	}
	return []cel.EnvOption{
		cel.Function("quantity", cel.Overload("string_to_quantity", []*cel.Type{cel.StringType}, quantityType,
			cel.UnaryBinding(func(text ref.Val) ref.Val {
				q, err := apiresource.ParseQuantity(string(text.(celtypes.String)))
				if err != nil {
					return celtypes.NewErr("%q is no quantity: %v", string(text.(celtypes.String)), err)
				}
				return quantity{q}
			}))),
		cel.Function("isQuantity", cel.Overload("is_quantity_string", []*cel.Type{cel.StringType}, cel.BoolType,
			cel.UnaryBinding(func(text ref.Val) ref.Val {
				_, err := apiresource.ParseQuantity(string(text.(celtypes.String)))
				return celtypes.Bool(err == nil)
			}))),
		compare("compareTo", "quantity_compare_to", cel.IntType, func(order int) ref.Val { return celtypes.Int(order) }),
		compare("isLessThan", "quantity_is_less_than", cel.BoolType, func(order int) ref.Val { return celtypes.Bool(order < 0) }),
		compare("isGreaterThan", "quantity_is_greater_than", cel.BoolType, func(order int) ref.Val { return celtypes.Bool(order > 0) }),
	}
}

// ProgramOptions are none.
func (quantityLibrary) ProgramOptions() []cel.ProgramOption { return nil }

// quantity is a value of an expression.
type quantity struct{ apiresource.Quantity }

func (q quantity) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("a quantity is no %s", t)
}

func (q quantity) ConvertToType(t ref.Type) ref.Val {
	return celtypes.NewErr("a quantity is no %s", t.TypeName())
}

func (q quantity) Equal(other ref.Val) ref.Val {
	o, ok := other.(quantity)
	return celtypes.Bool(ok && q.Cmp(o.Quantity) == 0)
}

func (q quantity) Type() ref.Type { return quantityType }

func (q quantity) Value() any { return q.Quantity }
