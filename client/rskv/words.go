package main

import (
	"errors"
	"strconv"
	"strings"
)

// splitLine cuts a line into words at blanks. 'single quotes' keep everything as
// it is, "double quotes" have the escapes of Go ("\n", "\x00"), and a backslash
// outside of both keeps the next character.
func splitLine(line string) (words []string, err error) {
	var word strings.Builder
	begun := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\r', '\n':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
			continue
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' has no end")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
		case '"':
			quoted, err := strconv.QuotedPrefix(line[i:])
			if err != nil {
				return nil, errors.New(`a " has no end, or an escape that is none`)
			}
			text, _ := strconv.Unquote(quoted) // QuotedPrefix has checked it
			word.WriteString(text)
			i += len(quoted) - 1
		case '\\':
			if i++; i == len(line) {
				return nil, errors.New(`a \ has nothing behind it`)
			}
			word.WriteByte(line[i])
		default:
			word.WriteByte(c)
		}
		begun = true
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
