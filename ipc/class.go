package ipc

// What the codes mean for who gets them. A code this version does not know is none of the three:
// something failed that neither another request nor waiting mends.
var (
	userErrors = map[Code]bool{
		CodeBadRequest: true, CodeUnknownMethod: true, CodeKeyTooLarge: true, CodeValueTooLarge: true, CodeRequestTooLarge: true,
		CodeAnswerTooLarge: true, CodeNotInteger: true, CodeOverflow: true, CodeForbidden: true, CodeSessionUnknown: true,
	}
	recoverableErrors = map[Code]bool{CodeBusy: true, CodeDiskFull: true, CodeCursorLost: true, CodeShuttingDown: true}
)

// IsUserError reports whether what was asked for is at fault: it will be refused again.
func (c Code) IsUserError() bool { return userErrors[c] }

// IsRecoverable reports whether the same request may succeed later, to a daemon that was started
// again if need be.
func (c Code) IsRecoverable() bool { return recoverableErrors[c] }

// IsCorruption reports whether data was found that does not verify. Nothing of it is returned.
func (c Code) IsCorruption() bool { return c == CodeCorrupt }

// Category names the class of a code: "user", "recoverable", "corruption" or "fault".
func (c Code) Category() string {
	switch {
	case c.IsUserError():
		return "user"
	case c.IsRecoverable():
		return "recoverable"
	case c.IsCorruption():
		return "corruption"
	}
	return "fault"
}

// IsUserError is that of the code.
func (e *Error) IsUserError() bool { return e.Code.IsUserError() }

// IsRecoverable is that of the code.
func (e *Error) IsRecoverable() bool { return e.Code.IsRecoverable() }

// IsCorruption is that of the code.
func (e *Error) IsCorruption() bool { return e.Code.IsCorruption() }
