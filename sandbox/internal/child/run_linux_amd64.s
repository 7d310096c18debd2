#include "textflag.h"

// func cloneAndRun(flags uintptr, calls *call, report *report, alive *uint32) int
//
// The child shares our stack and memory: it must not touch the stack, and never returns.
// The kernel keeps all registers but AX, CX and R11.
TEXT ·cloneAndRun(SB), NOSPLIT|NOFRAME, $0-40
	MOVQ flags+0(FP), DI
	MOVQ calls+8(FP), R12
	MOVQ report+16(FP), R13
	MOVQ alive+24(FP), R10
	XORL SI, SI
	XORL DX, DX
	XORL R8, R8
	MOVL $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JEQ  next
	MOVQ AX, ret+32(FP)
	RET

next:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	CMPQ AX, $-4095
	JCC  error
	MOVQ 64(R12), BX
	CMPQ BX, $1
	JEQ  fork
	CMPQ BX, $2
	JEQ  zero
	MOVQ 56(R12), BX
	TESTQ BX, BX
	JEQ  advance
	MOVQ AX, (BX)

advance:
	ADDQ $88, R12
	JMP  next

fork:
	TESTQ AX, AX
	JEQ  advance
	MOVQ 56(R12), BX
	MOVQ AX, (BX)
	XORL DI, DI
	JMP  exit

zero:
	TESTQ AX, AX
	JEQ  advance
	MOVQ $-3, AX // ESRCH

error:
	NEGQ AX
	CMPQ AX, 72(R12)
	JNE  fail
	ADDQ 80(R12), R12
	JMP  next

fail:
	MOVQ AX, 8(R13)
	MOVQ R12, 0(R13)
	MOVL $127, DI

exit:
	MOVL $231, AX // exit_group
	SYSCALL
	JMP  exit
