package main

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

type object = map[string]any

// definitions are the schema of the configuration: of the file as a whole but
// for what the chart writes itself, of a step, and of each type's options.
func definitions() object {
	file := schemaOf(reflect.TypeFor[configuration]())
	properties := file["properties"].(object)
	for _, own := range []string{"apiVersion", "kind", "sentinel"} {
		delete(properties, own)
	}
	properties["checks"] = object{"type": "array", "minItems": 1, "items": object{"$ref": "#/$defs/step"}}
	file["required"] = []string{"checks"}

	aStep := schemaOf(reflect.TypeFor[step]())
	aStep["required"] = []string{"name", "type"}
	aStep["properties"].(object)["name"] = object{"type": "string", "pattern": stepName.String()}
	aStep["properties"].(object)["type"] = object{"enum": checks.Types()}
	var byType []object
	defs := object{"configuration": file, "step": aStep}
	for _, typeName := range checks.Types() {
		defs[typeName] = schemaOf(reflect.TypeOf(checks.Defaults(typeName)))
		byType = append(byType, object{
			"if":   object{"properties": object{"type": object{"const": typeName}}},
			"then": object{"properties": object{"options": object{"$ref": "#/$defs/" + typeName}}},
		})
	}
	aStep["allOf"] = byType
	return defs
}

// schemaOf describes what checks.Decode takes for the type. What decodes itself
// is a string, or anything where that is not known.
func schemaOf(t reflect.Type) object {
	pointer := reflect.PointerTo(t)
	switch {
	case t == reflect.TypeFor[soak.Amount]():
		return object{"type": []string{"integer", "string"}, "pattern": `^[0-9]+%?$`, "minimum": 0}
	case t == reflect.TypeFor[model.Duration]():
		return object{"type": "string", "pattern": `^([0-9]+(ms|[smhdwy]))+$|^0$`}
	case t == reflect.TypeFor[paths]() || t == reflect.TypeFor[json.RawMessage](), pointer.Implements(reflect.TypeFor[json.Unmarshaler]()):
		return object{}
	case pointer.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Struct:
		properties := object{}
		for f := range t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				properties[name] = schemaOf(f.Type)
			}
		}
		return object{"type": "object", "properties": properties, "additionalProperties": false}
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	}
	return object{"type": "string"}
}
