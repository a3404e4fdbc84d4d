// Package ticks reads tickgate's canonical file of recorded ticks: CSV in UTF-8, gzipped if its name ends in `.gz`.
//
//	symbol,exchange_ts_ns,sequence,price,size,aggressor,bid,ask,bid_size,ask_size
//	BTCUSDT,1700000000000000000,17,37000.5,0.01,buy,,,,
//
// A row has a trade (price, size, and an aggressor that may be empty), a quote, or both; what it has not is empty.
package ticks

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

var columns = []string{
	"symbol", "exchange_ts_ns", "sequence", "price", "size", "aggressor", "bid", "ask", "bid_size", "ask_size",
}

const byteOrderMark = "\ufeff" // spreadsheets put one before the header

// BadRowError is a row that is not one of the format.
type BadRowError struct {
	Path string
	// Line at which the row starts, from 1.
	Line int
	// Column is empty if the row as a whole is at fault.
	Column string
	// Found stands there, Expected should.
	Found, Expected string
}

func (e *BadRowError) Error() string {
	column := ""
	if e.Column != "" {
		column = ", column " + e.Column
	}
	return fmt.Sprintf("%s, line %d%s: found %s, expected %s", e.Path, e.Line, column, e.Found, e.Expected)
}

// Reader gives a file's ticks one by one. It is not safe for concurrent use.
type Reader struct {
	path    string
	rows    *csv.Reader
	line    int // of the last row that was read
	closers []io.Closer
}

// Open opens the file and reads its header. The caller closes the Reader.
func Open(path string) (*Reader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: path, closers: []io.Closer{file}}
	if err := r.begin(file); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) begin(content io.Reader) error {
	if strings.HasSuffix(r.path, ".gz") {
		unpacked, err := gzip.NewReader(content)
		if err != nil {
			return r.unreadable(err)
		}
		r.closers = append(r.closers, unpacked)
		content = unpacked
	}
	buffered := bufio.NewReader(content)
	if mark, err := buffered.Peek(len(byteOrderMark)); err == nil && string(mark) == byteOrderMark {
		if _, err := buffered.Discard(len(byteOrderMark)); err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
	}
	r.rows = csv.NewReader(buffered)
	r.rows.FieldsPerRecord = -1 // a wrong number is told with what was expected
	r.rows.ReuseRecord = true
	header, err := r.rows.Read()
	expected := fmt.Sprintf("the header %q", strings.Join(columns, ","))
	switch {
	case errors.Is(err, io.EOF):
		return &BadRowError{Path: r.path, Line: 1, Found: "an empty file", Expected: expected}
	case err != nil:
		return r.unreadable(err)
	case !slices.Equal(header, columns):
		found := fmt.Sprintf("%q", strings.Join(header, ","))
		return &BadRowError{Path: r.path, Line: 1, Found: found, Expected: expected}
	}
	r.line = 1
	return nil
}

// Next gives the next tick, io.EOF after the last one, and a *BadRowError at a row that is none.
func (r *Reader) Next() (*pb.Tick, error) {
	fields, err := r.rows.Read()
	if err == io.EOF { // bare, and only at the end of a whole row
		return nil, io.EOF
	}
	if err != nil {
		return nil, r.unreadable(err)
	}
	r.line, _ = r.rows.FieldPos(0)
	tick, bad := parse(fields)
	if bad != nil {
		bad.Path, bad.Line = r.path, r.line
		return nil, bad
	}
	return tick, nil
}

// Close closes the file.
func (r *Reader) Close() error {
	var errs []error
	for _, closer := range slices.Backward(r.closers) {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}

// unreadable says where reading stopped, for what is no row at all: bad quoting, damaged gzip data, a failing disk.
func (r *Reader) unreadable(err error) error {
	var malformed *csv.ParseError
	if errors.As(err, &malformed) {
		return &BadRowError{
			Path: r.path, Line: malformed.StartLine,
			Found: fmt.Sprintf("a malformed row (%v)", malformed.Err), Expected: "comma-separated values",
		}
	}
	return fmt.Errorf("%s, after line %d: %w", r.path, r.line, err)
}
