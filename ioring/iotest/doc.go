// Package iotest has what tests of storage need.
//
//	Contract   the rules of ioring.Device as one test for all devices
//	Mem        a device in memory that knows what has been synced:
//	           CrashImage   the disk as a power cut at this moment may leave it
//	           OnOp         a look at every moment, those inside a metadata stream
//	                        too; FailAfter: none after the n-th
//	           Manual       nothing happens until Step: one goroutine, one seed
//	Fault      any device, with failures by rule: errors, short, torn and late
//	           transfers, flipped bits, answers in another order, metadata that
//	           cannot be written or whose stream breaks
//	faultfs    a file system whose requests fail by rule, so that the errors come
//	           from a kernel; a package of its own, because only Linux has it
//
// All choices come from seeds; the random tests print theirs, and repeat the one
// given in the environment as TEST_SEED.
//
// A Mem is weaker than most disks on purpose: a sync covers exactly the writes
// that had finished when it was submitted, names of new segments are lost until a
// sync, and discarded segments may come back. Code that survives its crash images
// does not depend on the kindness of one file system.
package iotest
