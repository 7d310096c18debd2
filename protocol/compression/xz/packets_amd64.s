//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Registers that keep their meaning:
//
//	AX   the range
//	DX   the position in it, always less than the range
//	R8   the next byte of the chunk
//	R9   the model
//	R10  the dictionary
//	R11  where the next byte goes, an index into the dictionary
//	R15  at the beginning of a packet, the byte before that
//
// The others are for the moment; below, BX is mostly a probability, CX the bound between a zero and a one, DI a tree of
// probabilities and SI the node in it.
//
// What keeps it in its bounds, whatever the chunk contains:
//
//   - Input: a packet takes less than 64 bits with or without a probability, each at most one byte, and begins only
//     while R8 is not behind the chunk, which is at most half of the room that it is in.
//   - Output: a literal goes before stop; a match is compared with end, and the copy writes less than overshoot more.
//   - What is repeated: a distance is compared with R11. The byte that a literal after a match looks at is at a distance
//     that was compared before; the caller does so at the chunk's beginning.
//   - Probabilities: the state is less than 12 (only the numbers of the tables below become one), the position's bits at
//     most 15 by setProperties, the literals' context less than 16 for the same reason, and the node of a tree of n bits
//     less than 2^n by its construction, since it grows by one bit a turn from one on.

// NORMALIZE takes in another byte if the range has become small.
#define NORMALIZE \
	CMPL    AX, $const_top; \
	JAE     5(PC);          \
	SHLL    $8, AX;         \
	SHLL    $8, DX;         \
	MOVB    (R8), DX;       \
	INCQ    R8

// BOUND sets CX to where the ones begin, for the probability in P.
#define BOUND(P) \
	MOVL    AX, CX;              \
	SHRL    $const_probBits, CX; \
	IMULL   P, CX

// BIT decodes a bit with the probability that is at P, and jumps if it is a one. What is left to do then does ONE.
#define BIT(P, LABEL) \
	MOVWLZX P, BX;                    \
	NORMALIZE;                        \
	BOUND(BX);                        \
	CMPL    DX, CX;                   \
	JAE     LABEL;                    \
	MOVL    CX, AX;                   \
	MOVL    $(1<<const_probBits), CX; \
	SUBL    BX, CX;                   \
	SHRL    $const_probShift, CX;     \
	ADDL    CX, BX;                   \
	MOVW    BX, P

#define ONE(P) \
	SUBL    CX, AX;               \
	SUBL    CX, DX;               \
	MOVL    BX, CX;               \
	SHRL    $const_probShift, CX; \
	SUBL    CX, BX;               \
	MOVW    BX, P

// DECIDE decodes a bit with the probability in P, without a branch, when BOUND is known. It leaves the carry set for a
// zero, and in BP what ADAPT takes: the probability, or for a zero, which lets it grow towards 1<<probBits, what is
// missing to that, negative and so that it is rounded up.
#define DECIDE(P) \
	SUBL    CX, AX;                                              \
	MOVL    DX, BP;                                              \
	SUBL    CX, DX;                                              \
	CMOVLCS CX, AX;                                              \
	CMOVLCS BP, DX;                                              \
	LEAL    ((1<<const_probShift)-1-(1<<const_probBits))(P), BP; \
	CMOVLCC P, BP

// ADAPT stores the probability P as it is after the bit.
#define ADAPT(P, AT) \
	SARL    $const_probShift, BP; \
	SUBL    BP, P;                \
	MOVW    P, AT

// BRANCHING decodes the bit of a tree at the node NODE, whose probability is in P, and sets NEXT to the node below and Q
// to its probability. Both that it may be are loaded before the bit is known.
#define BRANCHING(NODE, NEXT, P, Q) \
	NORMALIZE;                     \
	BOUND(P);                      \
	MOVWLZX (DI)(NODE*4), R12;     \
	MOVWLZX 2(DI)(NODE*4), Q;      \
	DECIDE(P);                     \
	CMOVLCS R12, Q;                \
	LEAL    1(NODE)(NODE*1), NEXT; \
	SBBL    $0, NEXT;              \
	ADAPT(P, (DI)(NODE*2))

// LEAF does so at the last level.
#define LEAF(NODE, NEXT, P) \
	NORMALIZE;                     \
	BOUND(P);                      \
	DECIDE(P);                     \
	LEAL    1(NODE)(NODE*1), NEXT; \
	SBBL    $0, NEXT;              \
	ADAPT(P, (DI)(NODE*2))

// TREE3, TREE6 and TREE8 decode numbers of so many bits with the tree at DI, and leave them, with a one in front, in
// R15, SI and SI.
#define TREE3 \
	MOVL    $1, SI;              \
	MOVWLZX 2(DI), BX;           \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	LEAF(SI, R15, BX)

#define TREE6 \
	MOVL    $1, SI;              \
	MOVWLZX 2(DI), BX;           \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	BRANCHING(SI, R15, BX, R14); \
	LEAF(R15, SI, R14)

#define TREE8 \
	MOVL    $1, SI;              \
	MOVWLZX 2(DI), BX;           \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	BRANCHING(SI, R15, BX, R14); \
	BRANCHING(R15, SI, R14, BX); \
	BRANCHING(SI, R15, BX, R14); \
	LEAF(R15, SI, R14)

// LIKE decodes a bit of a literal after a match. The node is in SI. R13 is 0x100 as long as the bits have been those of
// the byte that would have continued the match, else 0; R14 is that byte, of which the bit that comes is at 0x100. The
// three choose the probability.
#define LIKE \
	MOVL    R14, R12;         \
	ANDL    R13, R12;         \
	LEAL    (R13)(SI*1), R15; \
	ADDL    R12, R15;         \
	MOVWLZX (DI)(R15*2), BX;  \
	NORMALIZE;                \
	BOUND(BX);                \
	XORL    R12, R13;         \
	ADDL    R14, R14;         \
	ADDL    SI, SI;           \
	DECIDE(BX);               \
	CMOVLCC R12, R13;         \
	SBBL    $-1, SI;          \
	ADAPT(BX, (DI)(R15*2))

// REVERSE decodes a bit of a number whose lowest bit comes first, as BRANCHING does, and sets R14, which is that number,
// to SUM if it is a one. Behind the last level it loads what it does not need from what lies behind in the model.
#define REVERSE(NODE, NEXT, P, Q, SUM) \
	NORMALIZE;                     \
	BOUND(P);                      \
	MOVWLZX (DI)(NODE*4), R12;     \
	MOVWLZX 2(DI)(NODE*4), Q;      \
	LEAL    SUM, R13;              \
	DECIDE(P);                     \
	CMOVLCS R12, Q;                \
	CMOVLCC R13, R14;              \
	LEAL    1(NODE)(NODE*1), NEXT; \
	SBBL    $0, NEXT;              \
	ADAPT(P, (DI)(NODE*2))

// STATE sets the state, which is in SI, to AFTER or OTHER, as what came before was a literal or something else.
#define STATE(AFTER, OTHER) \
	MOVL    $AFTER, CX;           \
	MOVL    $OTHER, BP;           \
	CMPL    SI, $const_litStates; \
	CMOVLCC BP, CX;               \
	MOVL    CX, state-12(SP)

// The smallest multiples of 1 to 15 that are 16 or more.
DATA ·multiples+0(SB)/8, $0x1015121410121010
DATA ·multiples+8(SB)/8, $0x001e1c1a18161412
GLOBL ·multiples(SB), RODATA|NOPTR, $16

// func packetsAsm(m *model, in *packed, size uint, buf *byte, w, stop, end uint) (now uint, ok bool)
TEXT ·packetsAsm(SB), NOSPLIT, $48-65
	MOVQ    m+0(FP), R9
	MOVQ    in+8(FP), R8
	MOVQ    buf+24(FP), R10
	MOVQ    w+32(FP), R11
	MOVQ    size+16(FP), CX
	ADDQ    R8, CX
	MOVQ    CX, inEnd-8(SP)
	ADDQ    model_at(R9), R8
	MOVL    model_rng(R9), AX
	MOVL    model_code(R9), DX
	MOVL    model_state(R9), CX
	MOVL    CX, state-12(SP)

	// The context of a literal is the lowest bits of its position over the highest of the byte before, each kind with its
	// mask; one multiplication makes it an offset of whole sets of probabilities.
	MOVQ    model_literalBits(R9), CX
	MOVL    $0x600, SI
	SHLL    CX, SI
	SHRL    $8, SI
	MOVL    SI, literalScale-16(SP)
	MOVL    $0x100, BX
	MOVL    BX, SI
	SHRL    CX, SI
	NEGL    SI
	ANDL    $0xff, SI
	MOVL    SI, literalPrev-20(SP)
	MOVL    model_literalPosMask(R9), SI
	MOVL    SI, literalPos-24(SP)

	XORL    R15, R15
	TESTQ   R11, R11
	JZ      packet
	MOVBLZX -1(R10)(R11*1), R15

packet:
	CMPQ    R11, stop+40(FP)
	JAE     done
	CMPQ    R8, inEnd-8(SP)
	JA      corrupt
	MOVL    model_posMask(R9), R13
	ANDL    R11, R13
	MOVL    R13, pos-28(SP)
	MOVL    state-12(SP), R14
	MOVL    R14, SI
	SHLL    $4, SI
	ADDL    R13, SI
	BIT(model_isMatch(R9)(SI*2), match)

	MOVL    literalPos-24(SP), DI
	ANDL    R11, DI
	SHLL    $8, DI
	ANDL    literalPrev-20(SP), R15
	ADDL    R15, DI
	IMULL   literalScale-16(SP), DI
	LEAQ    model_literals(R9)(DI*1), DI
	CMPL    R14, $const_litStates
	JAE     like
	XORL    CX, CX
	SUBL    $3, R14
	CMOVLCS CX, R14
	MOVL    R14, state-12(SP)
	TREE8

literal:
	MOVB    SI, (R10)(R11*1)
	INCQ    R11
	MOVBLZX SI, R15
	JMP     packet

// After a literal the state is that of so many literals since the last match: see afterLiteral.
like:
	LEAL    -3(R14), CX
	LEAL    -6(R14), BP
	CMPL    R14, $10
	CMOVLCC BP, CX
	MOVL    CX, state-12(SP)
	MOVQ    R11, R14
	MOVL    model_rep0(R9), CX
	SUBQ    CX, R14
	MOVBLZX -1(R10)(R14*1), R14
	ADDL    R14, R14
	MOVL    $0x100, R13
	MOVL    $1, SI
	LIKE
	LIKE
	LIKE
	LIKE
	LIKE
	LIKE
	LIKE
	LIKE
	JMP     literal

match:
	ONE(model_isMatch(R9)(SI*2))
	MOVL    R14, SI
	BIT(model_isRep(R9)(SI*2), repeated)
	MOVL    model_rep2(R9), CX
	MOVL    CX, model_rep3(R9)
	MOVL    model_rep1(R9), CX
	MOVL    CX, model_rep2(R9)
	MOVL    model_rep0(R9), CX
	MOVL    CX, model_rep1(R9)
	STATE(7, 10)
	LEAQ    model_matchLen(R9), DI
	MOVL    $0, again-32(SP)
	JMP     length

repeated:
	ONE(model_isRep(R9)(SI*2))
	BIT(model_isRep0(R9)(SI*2), notRep0)
	MOVL    SI, R14
	SHLL    $4, R14
	ADDL    R13, R14
	BIT(model_isRep0Long(R9)(R14*2), longRep0)
	STATE(9, 11)
	MOVL    model_rep0(R9), R14
	CMPQ    R14, R11
	JAE     corrupt
	MOVQ    R11, SI
	SUBQ    R14, SI
	MOVBLZX -1(R10)(SI*1), R15
	MOVB    R15, (R10)(R11*1)
	INCQ    R11
	JMP     packet

longRep0:
	ONE(model_isRep0Long(R9)(R14*2))
	JMP     repeatedLength

notRep0:
	ONE(model_isRep0(R9)(SI*2))
	BIT(model_isRep1(R9)(SI*2), notRep1)
	MOVL    model_rep0(R9), CX
	MOVL    model_rep1(R9), BP
	MOVL    CX, model_rep1(R9)
	MOVL    BP, model_rep0(R9)
	JMP     repeatedLength

notRep1:
	ONE(model_isRep1(R9)(SI*2))
	BIT(model_isRep2(R9)(SI*2), notRep2)
	MOVL    model_rep2(R9), BP
	JMP     rotate

notRep2:
	ONE(model_isRep2(R9)(SI*2))
	MOVL    model_rep2(R9), CX
	MOVL    model_rep3(R9), BP
	MOVL    CX, model_rep3(R9)

rotate:
	MOVL    model_rep1(R9), CX
	MOVL    CX, model_rep2(R9)
	MOVL    model_rep0(R9), CX
	MOVL    CX, model_rep1(R9)
	MOVL    BP, model_rep0(R9)

repeatedLength:
	STATE(8, 11)
	LEAQ    model_repLen(R9), DI
	MOVL    $1, again-32(SP)

length:
	BIT(lengths_choice(DI), long)
	MOVL    pos-28(SP), SI
	SHLL    $4, SI
	LEAQ    lengths_low(DI)(SI*1), DI
	TREE3
	SUBL    $(8-const_minMatch), R15
	JMP     distance

long:
	ONE(lengths_choice(DI))
	BIT(lengths_choice2(DI), longer)
	MOVL    pos-28(SP), SI
	SHLL    $4, SI
	LEAQ    lengths_mid(DI)(SI*1), DI
	TREE3
	ADDL    $const_minMatch, R15
	JMP     distance

longer:
	ONE(lengths_choice2(DI))
	LEAQ    lengths_high(DI), DI
	TREE8
	LEAL    (-256+16+const_minMatch)(SI), R15

// R15 is the match's length.
distance:
	MOVL    R15, length-36(SP)
	MOVL    model_rep0(R9), R14
	CMPL    again-32(SP), $0
	JNE     copy
	SUBL    $const_minMatch, R15
	MOVL    $3, DI
	CMPL    R15, DI
	CMOVLCS R15, DI
	SHLL    $7, DI
	LEAQ    model_slot(R9)(DI*1), DI
	TREE6
	SUBL    $64, SI
	MOVL    SI, R14
	CMPL    SI, $4
	JB      fetched
	ANDL    $1, R14
	ORL     $2, R14
	MOVL    SI, CX
	SHRL    $1, CX
	DECL    CX
	CMPL    SI, $14
	JAE     direct

	SHLL    CX, R14
	MOVL    R14, DI
	SUBL    SI, DI
	LEAQ    model_special(R9)(DI*2), DI
	MOVL    CX, left-40(SP)
	MOVL    $1, SI
	MOVL    $1, R15
	MOVWLZX 2(DI), BX

special:
	REVERSE(SI, R13, BX, R10, (R14)(R15*1))
	MOVL    R13, SI
	MOVL    R10, BX
	ADDL    R15, R15
	DECL    left-40(SP)
	JNZ     special
	MOVQ    buf+24(FP), R10
	JMP     fetched

// The middle bits of a large distance have no probabilities.
direct:
	LEAL    -4(CX), R12
halve:
	CMPL    AX, $const_top
	JAE     halved
	SHLL    $8, DX
	MOVBLZX (R8), CX
	ORL     CX, DX
	SHLL    $8, AX
	INCQ    R8
halved:
	SHRL    $1, AX
	MOVL    DX, BP
	SUBL    AX, DX
	CMOVLCS BP, DX
	LEAL    1(R14)(R14*1), R14
	SBBL    $0, R14
	DECL    R12
	JNZ     halve
	SHLL    $4, R14
	LEAQ    model_align(R9), DI
	MOVL    $1, SI
	MOVWLZX 2(DI), BX
	REVERSE(SI, R15, BX, R10, 1(R14))
	REVERSE(R15, SI, R10, BX, 2(R14))
	REVERSE(SI, R15, BX, R10, 4(R14))
	REVERSE(R15, SI, R10, BX, 8(R14))
	MOVQ    buf+24(FP), R10

fetched:
	MOVL    R14, model_rep0(R9)

// R14 is the distance, less one.
copy:
	CMPQ    R14, R11
	JAE     corrupt
	MOVL    length-36(SP), CX
	MOVQ    end+48(FP), SI
	SUBQ    R11, SI
	CMPQ    CX, SI
	JA      corrupt
	LEAQ    (R10)(R11*1), DI
	MOVQ    DI, SI
	SUBQ    R14, SI
	DECQ    SI
	ADDQ    CX, R11
	CMPL    R14, $15
	JB      near
	MOVOU   (SI), X0
	MOVOU   X0, (DI)
	MOVOU   16(SI), X1
	MOVOU   X1, 16(DI)
	SUBQ    $32, CX
	JHI     far
copied:
	MOVBLZX -1(R10)(R11*1), R15
	JMP     packet

far:
	ADDQ    $32, SI
	ADDQ    $32, DI
	MOVOU   (SI), X0
	MOVOU   X0, (DI)
	MOVOU   16(SI), X1
	MOVOU   X1, 16(DI)
	SUBQ    $32, CX
	JHI     far
	JMP     copied

// So near that pieces would overlap: up to 16 bytes go one by one; what is left repeats what is a multiple of the
// distance before, which is no longer too near.
near:
	LEAQ    ·multiples(SB), R12
	MOVBLZX (R12)(R14*1), R12
	MOVL    $16, R13
	CMPQ    CX, R13
	CMOVQCS CX, R13
	SUBQ    R13, CX
single:
	MOVBLZX (SI), BP
	MOVB    BP, (DI)
	INCQ    SI
	INCQ    DI
	DECQ    R13
	JNZ     single
	TESTQ   CX, CX
	JZ      copied
	MOVQ    DI, SI
	SUBQ    R12, SI
wide:
	MOVOU   (SI), X0
	MOVOU   X0, (DI)
	ADDQ    $16, SI
	ADDQ    $16, DI
	SUBQ    $16, CX
	JHI     wide
	JMP     copied

done:
	MOVL    AX, model_rng(R9)
	MOVL    DX, model_code(R9)
	SUBQ    in+8(FP), R8
	MOVQ    R8, model_at(R9)
	MOVL    state-12(SP), CX
	MOVL    CX, model_state(R9)
	MOVQ    R11, now+56(FP)
	MOVB    $1, ok+64(FP)
	RET

corrupt:
	MOVQ    R11, now+56(FP)
	MOVB    $0, ok+64(FP)
	RET
