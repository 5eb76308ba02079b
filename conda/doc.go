// Package conda knows the names and formats that conda, mamba, rattler and
// pixi use in a package cache, and decides what may be published from one.
//
// It answers three questions and does nothing else; it opens no file by path
// and keeps no state:
//
//   - What is this name? [Classify] maps a path to the unit it belongs to: the
//     archive, the extracted package, the group of repodata files. A unit is
//     committed whole or not at all.
//   - Is this archive sound? [CheckArchive] decodes all of a .conda or .tar.bz2
//     and refuses members that would leave the package.
//   - Does this directory hold the package that its name says? [VerifyPackage]
//     compares every file with the package's own list (info/paths.json) or with
//     the archive, and says how far the result can be trusted.
//
// Paths are slash-separated and relative to a session's root, as in
// "pkgs/numpy-1.26.4-py312_0/info/index.json" or "rattler/pkgs/.cache.lock".
//
// Everything that is read here was written by somebody else. So each parser is
// bounded in memory and refuses what it does not understand with an error of
// kind fault.Corrupt that names the file and the reason.
package conda
