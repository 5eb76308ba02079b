// Package setup changes files of a machine or a user so that they use condafs, and changes
// them back: each [Step] knows whether it is done, how to do it and how to undo it.
package setup
