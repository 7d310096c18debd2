//go:build !purego

#include "textflag.h"

// Powers of x modulo the polynomial, the lowest degree in the highest bit as in the data. The product of two numbers in
// that order comes out one bit too low, hence the odd degrees. First those for 64 bytes further on (the eight bytes that
// come first are 64 degrees higher), then those for 16 bytes.
DATA ·folds+0(SB)/8, $0x6ae3efbb9dd441f3 // x^575
DATA ·folds+8(SB)/8, $0x081f6054a7842df4 // x^511
DATA ·folds+16(SB)/8, $0xe05dd497ca393ae4 // x^191
DATA ·folds+24(SB)/8, $0xdabe95afc7875f40 // x^127
GLOBL ·folds(SB), RODATA|NOPTR, $32

// FOLD carries X over to what comes later, in NEXT, with the powers in X4.
#define FOLD(X, NEXT) \
	MOVOU     X, X5;         \
	PCLMULQDQ $0x00, X4, X;  \
	PCLMULQDQ $0x11, X4, X5; \
	PXOR      X5, X;         \
	PXOR      NEXT, X

// func foldAsm(sum uint64, p *byte, blocks uint) (low, high uint64)
TEXT ·foldAsm(SB), NOSPLIT, $0-40
	MOVQ   p+8(FP), SI
	MOVQ   blocks+16(FP), CX
	MOVOU  (SI), X0
	MOVOU  16(SI), X1
	MOVOU  32(SI), X2
	MOVOU  48(SI), X3
	MOVQ   sum+0(FP), X6
	PXOR   X6, X0
	MOVOU  ·folds+0(SB), X4

next:
	DECQ   CX
	JZ     last
	ADDQ   $64, SI
	MOVOU  (SI), X6
	MOVOU  16(SI), X7
	MOVOU  32(SI), X8
	MOVOU  48(SI), X9
	FOLD(X0, X6)
	FOLD(X1, X7)
	FOLD(X2, X8)
	FOLD(X3, X9)
	JMP    next

last:
	MOVOU  ·folds+16(SB), X4
	FOLD(X0, X1)
	FOLD(X0, X2)
	FOLD(X0, X3)
	MOVQ   X0, low+24(FP)
	PSRLDQ $8, X0
	MOVQ   X0, high+32(FP)
	RET
