//go:build !purego

#include "textflag.h"

// What each group of four rounds does, for one digest. CUR holds the four words of the message that it takes in, PREV those
// before and NEXT those after it, which are made of the others from the sixteenth word on.
//
// The state is in two registers, as SHA256RNDS2 wants it: ABEF and CDGH. X0 is that instruction's third operand.

// LOAD reads four words of the message, whose bytes are in the other order.
#define LOAD(P, OFF, CUR) \
	MOVOU OFF(P), CUR; \
	PSHUFB X14, CUR

#define ROUNDS12(OFF, CUR, ABEF, CDGH) \
	MOVOU OFF(AX), X0; \
	PADDD CUR, X0; \
	SHA256RNDS2 X0, ABEF, CDGH

#define ROUNDS34(ABEF, CDGH) \
	PSHUFD $0x0E, X0, X0; \
	SHA256RNDS2 X0, CDGH, ABEF

#define EXTEND(PREV, CUR, NEXT) \
	MOVO CUR, X13; \
	PALIGNR $4, PREV, X13; \
	PADDD X13, NEXT; \
	SHA256MSG2 CUR, NEXT

#define FIRST(OFF, CUR, ABEF, CDGH) \
	ROUNDS12(OFF, CUR, ABEF, CDGH); \
	ROUNDS34(ABEF, CDGH)

#define SECOND(OFF, PREV, CUR, ABEF, CDGH) \
	FIRST(OFF, CUR, ABEF, CDGH); \
	SHA256MSG1 CUR, PREV

#define MIDDLE(OFF, PREV, CUR, NEXT, ABEF, CDGH) \
	ROUNDS12(OFF, CUR, ABEF, CDGH); \
	EXTEND(PREV, CUR, NEXT); \
	ROUNDS34(ABEF, CDGH); \
	SHA256MSG1 CUR, PREV

#define LATE(OFF, PREV, CUR, NEXT, ABEF, CDGH) \
	ROUNDS12(OFF, CUR, ABEF, CDGH); \
	EXTEND(PREV, CUR, NEXT); \
	ROUNDS34(ABEF, CDGH)

// The words of the first digest's message are in X3 to X6, those of the second's in X9 to X12.
#define BOTH_MIDDLE(OFF, P1, C1, N1, P2, C2, N2) \
	MIDDLE(OFF, P1, C1, N1, X1, X2); \
	MIDDLE(OFF, P2, C2, N2, X7, X8)

#define BOTH_LATE(OFF, P1, C1, N1, P2, C2, N2) \
	LATE(OFF, P1, C1, N1, X1, X2); \
	LATE(OFF, P2, C2, N2, X7, X8)

// STATE brings eight words into the form of two registers.
#define STATE(H, ABEF, CDGH) \
	MOVOU 0(H), X13; \
	MOVOU 16(H), CDGH; \
	PSHUFD $0xB1, X13, X13; \
	PSHUFD $0x1B, CDGH, CDGH; \
	MOVO X13, ABEF; \
	PALIGNR $8, CDGH, ABEF; \
	PBLENDW $0xF0, X13, CDGH

// WORDS is the inverse of STATE.
#define WORDS(H, ABEF, CDGH) \
	PSHUFD $0x1B, ABEF, X13; \
	PSHUFD $0xB1, CDGH, CDGH; \
	MOVO X13, ABEF; \
	PBLENDW $0xF0, CDGH, ABEF; \
	PALIGNR $8, X13, CDGH; \
	MOVOU ABEF, 0(H); \
	MOVOU CDGH, 16(H)

DATA reversed<>+0(SB)/8, $0x0405060700010203
DATA reversed<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL reversed<>(SB), RODATA|NOPTR, $16

// func compress2(a, b *[8]uint32, p, q *byte, blocks int, k *[64]uint32)
TEXT ·compress2(SB), NOSPLIT, $64-48
	MOVQ a+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ p+16(FP), R8
	MOVQ q+24(FP), R9
	MOVQ blocks+32(FP), CX
	MOVQ k+40(FP), AX
	MOVOU reversed<>(SB), X14
	STATE(DI, X1, X2)
	STATE(SI, X7, X8)
	TESTQ CX, CX
	JZ done

block:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)

	LOAD(R8, 0, X3)
	LOAD(R9, 0, X9)
	FIRST(0, X3, X1, X2)
	FIRST(0, X9, X7, X8)
	LOAD(R8, 16, X4)
	LOAD(R9, 16, X10)
	SECOND(16, X3, X4, X1, X2)
	SECOND(16, X9, X10, X7, X8)
	LOAD(R8, 32, X5)
	LOAD(R9, 32, X11)
	SECOND(32, X4, X5, X1, X2)
	SECOND(32, X10, X11, X7, X8)
	LOAD(R8, 48, X6)
	LOAD(R9, 48, X12)
	BOTH_MIDDLE(48, X5, X6, X3, X11, X12, X9)
	BOTH_MIDDLE(64, X6, X3, X4, X12, X9, X10)
	BOTH_MIDDLE(80, X3, X4, X5, X9, X10, X11)
	BOTH_MIDDLE(96, X4, X5, X6, X10, X11, X12)
	BOTH_MIDDLE(112, X5, X6, X3, X11, X12, X9)
	BOTH_MIDDLE(128, X6, X3, X4, X12, X9, X10)
	BOTH_MIDDLE(144, X3, X4, X5, X9, X10, X11)
	BOTH_MIDDLE(160, X4, X5, X6, X10, X11, X12)
	BOTH_MIDDLE(176, X5, X6, X3, X11, X12, X9)
	BOTH_MIDDLE(192, X6, X3, X4, X12, X9, X10)
	BOTH_LATE(208, X3, X4, X5, X9, X10, X11)
	BOTH_LATE(224, X4, X5, X6, X10, X11, X12)
	FIRST(240, X6, X1, X2)
	FIRST(240, X12, X7, X8)

	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	MOVOU 32(SP), X13
	PADDD X13, X7
	MOVOU 48(SP), X13
	PADDD X13, X8
	ADDQ $64, R8
	ADDQ $64, R9
	DECQ CX
	JNZ block

done:
	WORDS(DI, X1, X2)
	WORDS(SI, X7, X8)
	RET
