package handover

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// The encoding of values. Each begins with a byte that says of which kind it is, so that
// what a reader does not know can be skipped. Fields of a struct go by their names, of
// which each is written out once; a field that is zero, or not exported, is left out.
// So a program can read what one has written that knew fewer fields, or more.
//
// encoding/gob is not used because it makes a map of any size that the input asks for.
// Here no more is made than what is there.
const (
	kindNil    = iota
	kindUint   // a varint
	kindInt    // a varint, zigzag
	kindBytes  // their number, and they
	kindList   // the number of values, and they
	kindMap    // the number of pairs; keys and values
	kindStruct // the number of fields; names and values
)

// maxDepth bounds how deep values lie in each other.
const maxDepth = 32

var (
	errImage    = errors.New("it makes no sense")
	marshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	unmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
)

// encoder appends values to b.
type encoder struct {
	b     []byte
	names map[string]uint64
}

// encode returns the encoding of a value.
func encode(v any) ([]byte, error) {
	e := &encoder{names: make(map[string]uint64)}
	err := e.value(reflect.ValueOf(v), 0)
	return e.b, err
}

func (e *encoder) kind(k byte)   { e.b = append(e.b, k) }
func (e *encoder) uint(n uint64) { e.b = binary.AppendUvarint(e.b, n) }

func (e *encoder) bytes(b []byte) {
	e.kind(kindBytes)
	e.uint(uint64(len(b)))
	e.b = append(e.b, b...)
}

func (e *encoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errors.New("a value is too deep")
	}
	if v.IsValid() && v.Kind() != reflect.Pointer && v.Type().Implements(marshaler) {
		b, err := v.Interface().(encoding.BinaryMarshaler).MarshalBinary()
		e.bytes(b)
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		e.kind(kindUint)
		if v.Bool() {
			e.uint(1)
		} else {
			e.uint(0)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.kind(kindUint)
		e.uint(v.Uint())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.kind(kindInt)
		e.b = binary.AppendVarint(e.b, v.Int())
	case reflect.String:
		e.bytes([]byte(v.String()))
	case reflect.Pointer:
		if v.IsNil() {
			e.kind(kindNil)
			return nil
		}
		return e.value(v.Elem(), depth)
	case reflect.Slice, reflect.Array:
		return e.list(v, depth)
	case reflect.Map:
		return e.pairs(v, depth)
	case reflect.Struct:
		return e.fields(v, depth)
	default:
		return fmt.Errorf("a value of type %v cannot be handed over", v.Type())
	}
	return nil
}

func (e *encoder) list(v reflect.Value, depth int) error {
	if v.Kind() == reflect.Slice && v.IsNil() {
		e.kind(kindNil)
		return nil
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		e.bytes(b)
		return nil
	}
	e.kind(kindList)
	e.uint(uint64(v.Len()))
	for i := range v.Len() {
		if err := e.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) pairs(v reflect.Value, depth int) error {
	if v.IsNil() {
		e.kind(kindNil)
		return nil
	}
	e.kind(kindMap)
	e.uint(uint64(v.Len()))
	for it := v.MapRange(); it.Next(); {
		if err := errors.Join(e.value(it.Key(), depth+1), e.value(it.Value(), depth+1)); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) fields(v reflect.Value, depth int) error {
	var there []int
	exported := v.NumField() == 0
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		exported = true
		if !v.Field(i).IsZero() {
			there = append(there, i)
		}
	}
	if !exported {
		return fmt.Errorf("a value of type %v cannot be handed over: it exports nothing", v.Type())
	}
	e.kind(kindStruct)
	e.uint(uint64(len(there)))
	for _, i := range there {
		e.name(v.Type().Field(i).Name)
		if err := e.value(v.Field(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// name writes the number of a name, and the first time itself.
func (e *encoder) name(s string) {
	n, known := e.names[s]
	if !known {
		n = uint64(len(e.names))
		e.names[s] = n
	}
	e.uint(n)
	if !known {
		e.uint(uint64(len(s)))
		e.b = append(e.b, s...)
	}
}

// decoder takes values from b.
type decoder struct {
	b     []byte
	names []string
}

// decode reads a value into what v points to. What it makes takes no more memory than a
// multiple of what it reads.
func decode(b []byte, v any) error {
	d := &decoder{b: b}
	if err := d.value(reflect.ValueOf(v).Elem(), 0); err != nil {
		return err
	}
	if len(d.b) > 0 {
		return fmt.Errorf("%w: there is more after its end", errImage)
	}
	return nil
}

func (d *decoder) kind() (byte, error) {
	if len(d.b) == 0 {
		return 0, fmt.Errorf("%w: it ends too early", errImage)
	}
	k := d.b[0]
	d.b = d.b[1:]
	return k, nil
}

func (d *decoder) uint() (uint64, error) {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		return 0, fmt.Errorf("%w: a number", errImage)
	}
	d.b = d.b[size:]
	return n, nil
}

func (d *decoder) int() (int64, error) {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		return 0, fmt.Errorf("%w: a number", errImage)
	}
	d.b = d.b[size:]
	return n, nil
}

// count reads a number of things of which each takes at least a byte.
func (d *decoder) count() (int, error) {
	n, err := d.uint()
	if err == nil && n > uint64(len(d.b)) {
		err = fmt.Errorf("%w: more things than there is room for", errImage)
	}
	return int(n), err
}

func (d *decoder) bytes() ([]byte, error) {
	n, err := d.count()
	if err != nil {
		return nil, err
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b, nil
}

func (d *decoder) name() (string, error) {
	n, err := d.uint()
	if err != nil {
		return "", err
	}
	if n < uint64(len(d.names)) {
		return d.names[n], nil
	}
	b, err := d.bytes()
	if err == nil && n > uint64(len(d.names)) {
		err = fmt.Errorf("%w: a name", errImage)
	}
	d.names = append(d.names, string(b))
	return string(b), err
}

func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: it is too deep", errImage)
	}
	k, err := d.kind()
	if err != nil {
		return err
	}
	if k == kindNil {
		v.SetZero()
		return nil
	}
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.CanAddr() && v.Addr().Type().Implements(unmarshaler) {
		if k != kindBytes {
			return unexpected(k, v)
		}
		b, err := d.bytes()
		if err != nil {
			return err
		}
		return v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
	}
	switch k {
	case kindUint:
		return d.unsigned(v)
	case kindInt:
		n, err := d.int()
		if err == nil && (!v.CanInt() || v.OverflowInt(n)) {
			err = unexpected(k, v)
		}
		if err == nil {
			v.SetInt(n)
		}
		return err
	case kindBytes:
		return d.text(v)
	case kindList:
		return d.list(v, depth)
	case kindMap:
		return d.pairs(v, depth)
	case kindStruct:
		return d.fields(v, depth)
	}
	return unexpected(k, v)
}

func unexpected(kind byte, v reflect.Value) error {
	return fmt.Errorf("%w: something of kind %d for %v", errImage, kind, v.Type())
}

func (d *decoder) unsigned(v reflect.Value) error {
	n, err := d.uint()
	switch {
	case err != nil:
	case v.Kind() == reflect.Bool && n <= 1:
		v.SetBool(n == 1)
	case v.CanUint() && !v.OverflowUint(n):
		v.SetUint(n)
	default:
		err = unexpected(kindUint, v)
	}
	return err
}

func (d *decoder) text(v reflect.Value) error {
	b, err := d.bytes()
	switch {
	case err != nil:
	case v.Kind() == reflect.String:
		v.SetString(string(b))
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		v.Set(reflect.MakeSlice(v.Type(), len(b), len(b)))
		reflect.Copy(v, reflect.ValueOf(b))
	case v.Kind() == reflect.Array && v.Type().Elem().Kind() == reflect.Uint8 && v.Len() == len(b):
		reflect.Copy(v, reflect.ValueOf(b))
	default:
		err = unexpected(kindBytes, v)
	}
	return err
}

func (d *decoder) list(v reflect.Value, depth int) error {
	n, err := d.count()
	if err != nil {
		return err
	}
	switch {
	case v.Kind() == reflect.Array && v.Len() == n:
		for i := range n {
			if err := d.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, min(n, 64)))
		for i := range n {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
			if err := d.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	default:
		return unexpected(kindList, v)
	}
	return nil
}

func (d *decoder) pairs(v reflect.Value, depth int) error {
	n, err := d.count()
	if err != nil {
		return err
	}
	if v.Kind() != reflect.Map {
		return unexpected(kindMap, v)
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := d.value(key, depth+1); err != nil {
			return err
		}
		if err := d.value(elem, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(key, elem)
	}
	return nil
}

func (d *decoder) fields(v reflect.Value, depth int) error {
	n, err := d.count()
	if err != nil {
		return err
	}
	if v.Kind() != reflect.Struct {
		return unexpected(kindStruct, v)
	}
	v.SetZero()
	for range n {
		name, err := d.name()
		if err != nil {
			return err
		}
		if f, ok := v.Type().FieldByName(name); ok && f.IsExported() && len(f.Index) == 1 {
			err = d.value(v.Field(f.Index[0]), depth+1)
		} else {
			err = d.skip(depth + 1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skip reads over a value.
func (d *decoder) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: it is too deep", errImage)
	}
	k, err := d.kind()
	if err != nil {
		return err
	}
	each := 0
	switch k {
	case kindNil:
		return nil
	case kindUint, kindInt:
		_, err := d.uint()
		return err
	case kindBytes:
		_, err := d.bytes()
		return err
	case kindList, kindStruct:
		each = 1
	case kindMap:
		each = 2
	default:
		return fmt.Errorf("%w: something of kind %d", errImage, k)
	}
	n, err := d.count()
	if err != nil {
		return err
	}
	for range n {
		if k == kindStruct {
			if _, err := d.name(); err != nil {
				return err
			}
		}
		for range each {
			if err := d.skip(depth + 1); err != nil {
				return err
			}
		}
	}
	return nil
}
