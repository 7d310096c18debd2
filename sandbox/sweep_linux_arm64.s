#include "textflag.h"

// func cloneSweeper(uid uintptr, args *sweepArgs) int
//
// The child shares our stack and memory: it must touch neither, and never return.
TEXT ·cloneSweeper(SB), NOSPLIT|NOFRAME, $0-24
	MOVD uid+0(FP), R9
	MOVD args+8(FP), R10
	MOVD $0x711, R0 // CLONE_VM|CLONE_FS|CLONE_FILES|SIGCHLD
	MOVD ZR, R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD $220, R8 // clone
	SVC
	CBZ  R0, child
	MOVD R0, ret+16(FP)
	RET

child:
	MOVD $6, R0 // RLIMIT_NPROC
	MOVD R10, R1
	MOVD $164, R8 // setrlimit
	SVC
	MOVD R9, R0
	MOVD R9, R1
	MOVD R9, R2
	MOVD $147, R8 // setresuid
	SVC
	MOVD R0, R11
	MOVD $2, R0
	CBNZ R11, exit
	MOVD $-1, R0
	MOVD $9, R1
	MOVD $129, R8 // kill
	SVC
	ADD  $32, R10, R0
	ADD  $16, R10, R1
	ADD  $24, R10, R2
	MOVD $221, R8 // execve
	SVC
	MOVD R0, R11
	MOVD ZR, R0
	CMN  $11, R11 // EAGAIN
	BNE  exit
	MOVD $1, R0

exit:
	MOVD $94, R8 // exit_group
	SVC
	B    exit
