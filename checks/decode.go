package checks

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Decode decodes a JSON object over the defaults that are in the struct that
// into points to, and returns every mistake with its path: an unknown or
// misspelt field, also in case; a value of the wrong type; a null. A library
// decoder stops at the first wrong value, which is what this one is for: who
// repairs a configuration wants the whole list.
func Decode(path string, data []byte, into any) []error {
	if len(bytes.TrimSpace(data)) == 0 || string(bytes.TrimSpace(data)) == "null" {
		return nil
	}
	return decode(path, data, reflect.ValueOf(into).Elem())
}

func decode(path string, data []byte, v reflect.Value) []error {
	if string(data) == "null" {
		return []error{fmt.Errorf("%shas no value: give one, or leave the field out", prefix(path))}
	}
	switch {
	case decodesItself(v):
	case v.Kind() == reflect.Struct:
		return decodeStruct(path, data, v)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		if o, ok := v.Interface().(interface{ setDefaults() }); ok {
			o.setDefaults()
		}
		return decode(path, data, v.Elem())
	case v.Kind() == reflect.Slice:
		return decodeSlice(path, data, v)
	}
	if err := json.Unmarshal(data, v.Addr().Interface()); err != nil {
		return []error{fmt.Errorf("%s%w", prefix(path), wrongValue(err, data, v))}
	}
	return nil
}

func decodesItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}

func decodeStruct(path string, data []byte, v reflect.Value) []error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return []error{fmt.Errorf("%s%w", prefix(path), wrongValue(err, data, v))}
	}
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if tag, ok := v.Type().Field(i).Tag.Lookup("json"); ok {
			name, _, _ := strings.Cut(tag, ",")
			fields[name] = v.Field(i)
		}
	}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(object)) {
		field, ok := fields[key]
		if !ok {
			problems = append(problems, fmt.Errorf("%sunknown field %q: want one of %s", prefix(path), key, strings.Join(slices.Sorted(maps.Keys(fields)), ", ")))
			continue
		}
		problems = append(problems, decode(child(path, key), object[key], field)...)
	}
	return problems
}

func decodeSlice(path string, data []byte, v reflect.Value) []error {
	var elements []json.RawMessage
	if err := json.Unmarshal(data, &elements); err != nil {
		return []error{fmt.Errorf("%s%w", prefix(path), wrongValue(err, data, v))}
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elements), len(elements)))
	var problems []error
	for i, element := range elements {
		problems = append(problems, decode(fmt.Sprintf("%s[%d]", path, i), element, v.Index(i))...)
	}
	return problems
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func child(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// wrongValue says in the words of YAML what encoding/json says in those of Go.
// Errors of a type's own decoder are passed on.
func wrongValue(err error, data []byte, v reflect.Value) error {
	if _, ok := err.(*json.UnmarshalTypeError); !ok { //nolint:errorlint // encoding/json returns it bare
		return err
	}
	want := map[reflect.Kind]string{
		reflect.Struct: "a mapping", reflect.Slice: "a list", reflect.Bool: "true or false",
		reflect.String: "a string", reflect.Int: "a whole number",
	}[v.Kind()]
	if decodesItself(v) {
		want = "a string"
	}
	return fmt.Errorf("must be %s, not %.60s", want, data)
}

// atLeast is what is wrong with an option that is less than it may be.
func atLeast(field string, value, least int) error {
	if value < least {
		return fmt.Errorf("options.%s: must be at least %d, not %d", field, least, value)
	}
	return nil
}

// join leaves out what is not wrong.
func join(problems ...error) []error {
	return slices.DeleteFunc(problems, func(err error) bool { return errors.Is(err, nil) })
}
