#include "textflag.h"

TEXT spawn<>(SB),NOSPLIT,$0-0
	JMP	libc_posix_spawn(SB)
GLOBL	·spawnAddr(SB), RODATA, $8
DATA	·spawnAddr(SB)/8, $spawn<>(SB)

TEXT spawnattrInit<>(SB),NOSPLIT,$0-0
	JMP	libc_posix_spawnattr_init(SB)
GLOBL	·spawnattrInitAddr(SB), RODATA, $8
DATA	·spawnattrInitAddr(SB)/8, $spawnattrInit<>(SB)

TEXT spawnattrSetflags<>(SB),NOSPLIT,$0-0
	JMP	libc_posix_spawnattr_setflags(SB)
GLOBL	·spawnattrSetflagsAddr(SB), RODATA, $8
DATA	·spawnattrSetflagsAddr(SB)/8, $spawnattrSetflags<>(SB)

TEXT spawnattrSetbinpref<>(SB),NOSPLIT,$0-0
	JMP	libc_posix_spawnattr_setbinpref_np(SB)
GLOBL	·spawnattrSetbinprefAddr(SB), RODATA, $8
DATA	·spawnattrSetbinprefAddr(SB)/8, $spawnattrSetbinpref<>(SB)

TEXT sysctlbyname<>(SB),NOSPLIT,$0-0
	JMP	libc_sysctlbyname(SB)
GLOBL	·sysctlbynameAddr(SB), RODATA, $8
DATA	·sysctlbynameAddr(SB)/8, $sysctlbyname<>(SB)
