#include "textflag.h"

// func cloneAndRun(flags uintptr, calls *call, report *report, alive *uint32) int
//
// The child shares our stack and memory: it must not touch the stack, and never returns.
// The kernel keeps all registers but R0.
TEXT ·cloneAndRun(SB), NOSPLIT|NOFRAME, $0-40
	MOVD flags+0(FP), R0
	MOVD calls+8(FP), R20
	MOVD report+16(FP), R21
	MOVD alive+24(FP), R4
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD $220, R8 // clone
	SVC
	CBZ  R0, next
	MOVD R0, ret+32(FP)
	RET

next:
	MOVD 0(R20), R8
	MOVD 8(R20), R0
	MOVD 16(R20), R1
	MOVD 24(R20), R2
	MOVD 32(R20), R3
	MOVD 40(R20), R4
	MOVD 48(R20), R5
	SVC
	MOVD $-4095, R9
	CMP  R9, R0
	BHS  error
	MOVD 64(R20), R9
	CMP  $1, R9
	BEQ  fork
	CMP  $2, R9
	BEQ  zero
	MOVD 56(R20), R9
	CBZ  R9, advance
	MOVD R0, (R9)

advance:
	ADD  $88, R20
	B    next

fork:
	CBZ  R0, advance
	MOVD 56(R20), R9
	MOVD R0, (R9)
	MOVD ZR, R0
	B    exit

zero:
	CBZ  R0, advance
	MOVD $-3, R0 // ESRCH

error:
	NEG  R0, R0
	MOVD 72(R20), R9
	CMP  R9, R0
	BNE  fail
	MOVD 80(R20), R9
	ADD  R9, R20
	B    next

fail:
	MOVD R0, 8(R21)
	MOVD R20, 0(R21)
	MOVD $127, R0

exit:
	MOVD $94, R8 // exit_group
	SVC
	B    exit
