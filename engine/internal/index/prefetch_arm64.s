#include "textflag.h"

// func PrefetchLine(p unsafe.Pointer)
TEXT ·PrefetchLine(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	PRFM (R0), PLDL1KEEP
	RET

// func prefetchLines(lines *uintptr, n int)
TEXT ·prefetchLines(SB), NOSPLIT, $0-16
	MOVD lines+0(FP), R0
	MOVD n+8(FP), R1
line:
	MOVD.P 8(R0), R2
	PRFM (R2), PLDL1KEEP
	SUBS $1, R1, R1
	BNE  line
	RET

// func prefetchBuckets(table unsafe.Pointer, mask uint64, hashes *uint64, n int)
TEXT ·prefetchBuckets(SB), NOSPLIT, $0-32
	MOVD table+0(FP), R0
	MOVD mask+8(FP), R1
	MOVD hashes+16(FP), R2
	MOVD n+24(FP), R3
bucket:
	MOVD.P 8(R2), R4
	AND  R1, R4, R4
	ADD  R4<<6, R0, R4
	PRFM (R4), PLDL1KEEP
	SUBS $1, R3, R3
	BNE  bucket
	RET
