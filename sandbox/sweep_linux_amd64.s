#include "textflag.h"

// func cloneSweeper(uid uintptr, args *sweepArgs) int
//
// The child shares our stack and memory: it must touch neither, and never return.
TEXT ·cloneSweeper(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ uid+0(FP), BX
	MOVQ args+8(FP), R12
	MOVQ $0x711, DI // CLONE_VM|CLONE_FS|CLONE_FILES|SIGCHLD
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	MOVL $56, AX // clone
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	MOVQ AX, ret+16(FP)
	RET

child:
	MOVL $6, DI // RLIMIT_NPROC
	MOVQ R12, SI
	MOVL $160, AX // setrlimit
	SYSCALL
	MOVQ BX, DI
	MOVQ BX, SI
	MOVQ BX, DX
	MOVL $117, AX // setresuid
	SYSCALL
	MOVL $2, DI
	TESTQ AX, AX
	JNE  exit
	MOVQ $-1, DI
	MOVL $9, SI
	MOVL $62, AX // kill
	SYSCALL
	LEAQ 32(R12), DI
	LEAQ 16(R12), SI
	LEAQ 24(R12), DX
	MOVL $59, AX // execve
	SYSCALL
	XORL DI, DI
	CMPQ AX, $-11 // EAGAIN
	JNE  exit
	MOVL $1, DI

exit:
	MOVL $231, AX // exit_group
	SYSCALL
	JMP  exit
