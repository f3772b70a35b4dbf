// Package invariant says whether costly checks of internal state are compiled
// in. Cheap checks stand where they belong and always run; a check that walks a
// structure or adds to a hot path sits behind `if invariant.Enabled`, which the
// compiler removes from ordinary builds.
package invariant
