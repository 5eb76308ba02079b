// Package fault is how condafs says what went wrong.
//
// An error that reaches a person or a client says three things: what was being
// done (Op), to what (Name), and why it failed (the cause). Where somebody can
// do something about it, it adds a Hint. All of it is one line.
//
// Code decides by Kind, never by the text: the command line turns a Kind into an
// exit status, the file system turns it into an errno. Errors of the operating
// system keep their errno and get their Kind from it, so that a full disk is Full
// whoever met it, and a client below the mount sees ENOSPC and not EIO.
package fault
