"""Names of AHCI registers, bits and structures. Source: AHCI 1.3.1, chapters 3 and 4; Serial ATA 3.x, 10.5."""

from __future__ import annotations

# Generic host control (3.1)
CAP, GHC, IS, PI, VS, CAP2 = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x24
CAP_S64A, CAP_SNCQ, CAP_SCLO, CAP_SAM, CAP_PMD = 1 << 31, 1 << 30, 1 << 24, 1 << 18, 1 << 15
CAP_ISS_GEN3, CAP_NCS_32 = 3 << 20, 31 << 8
GHC_HR, GHC_IE, GHC_AE = 1, 1 << 1, 1 << 31
VERSION = 0x00010300
GLOBAL_NAMES = {CAP: "CAP", GHC: "GHC", IS: "IS", PI: "PI", VS: "VS", CAP2: "CAP2"}

# Port registers (3.3), relative to the port's base
PORT_BASE, PORT_LENGTH = 0x100, 0x80
PX_CLB, PX_CLBU, PX_FB, PX_FBU, PX_IS, PX_IE, PX_CMD = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
PX_TFD, PX_SIG, PX_SSTS, PX_SCTL, PX_SERR, PX_SACT, PX_CI = 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x38
PORT_NAMES = {
    PX_CLB: "PxCLB", PX_CLBU: "PxCLBU", PX_FB: "PxFB", PX_FBU: "PxFBU", PX_IS: "PxIS", PX_IE: "PxIE",
    PX_CMD: "PxCMD", PX_TFD: "PxTFD", PX_SIG: "PxSIG", PX_SSTS: "PxSSTS", PX_SCTL: "PxSCTL",
    PX_SERR: "PxSERR", PX_SACT: "PxSACT", PX_CI: "PxCI",
}  # fmt: skip

IS_DHRS, IS_PSS, IS_SDBS, IS_DPS, IS_PCS = 1, 1 << 1, 1 << 3, 1 << 5, 1 << 6
IS_PRCS, IS_OFS, IS_IFS, IS_TFES = 1 << 22, 1 << 24, 1 << 27, 1 << 30
IS_FROM_SERR = IS_PCS | IS_PRCS
"""Cleared through PxSERR, not by writing ones."""
IE_MASK = 0x7DC0007F

CMD_ST, CMD_SUD, CMD_POD, CMD_CLO, CMD_FRE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4
CMD_CCS_SHIFT, CMD_CCS = 8, 0x1F << 8
CMD_FR, CMD_CR, CMD_ATAPI, CMD_DLAE = 1 << 14, 1 << 15, 1 << 24, 1 << 25
CMD_WRITABLE = CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE

SERR_DIAG_N, SERR_DIAG_X = 1 << 16, 1 << 26
SSTS_DETECTED, SSTS_ACTIVE, SSTS_SPEED_SHIFT = 0x003, 0x100, 4
SSTS_NO_DEVICE, SSTS_OFFLINE = 0x000, 0x004
SCTL_MASK, SCTL_DET, SCTL_SPEED = 0xFFF, 0xF, 0xF
DET_COMRESET, DET_OFFLINE = 1, 4
SIG_NONE, TFD_NO_DEVICE = 0xFFFFFFFF, 0x7F

# Command header and table (4.2)
HEADER_LENGTH, SLOTS = 32, 32
HEADER_ATAPI, HEADER_CLEAR_BUSY = 1 << 5, 1 << 10
TABLE_ACMD, TABLE_PRDT, PRD_LENGTH = 0x40, 0x80, 16
PRD_INTERRUPT, PRD_BYTES = 1 << 31, 0x3FFFFF

# Frame information structures and where they land in the received FIS area (4.2.1)
FIS_H2D, FIS_D2H, FIS_SDB, FIS_PIO_SETUP = 0x27, 0x34, 0xA1, 0x5F
RX_PIO_SETUP, RX_D2H, RX_SDB = 0x20, 0x40, 0x58
FIS_INTERRUPT, FIS_D_IN, FIS_COMMAND = 1 << 6, 1 << 5, 1 << 7
CONTROL_SRST = 1 << 2
SDB_STATUS = 0x77
"""Status bits that a Set Device Bits FIS carries; BSY and DRQ stay."""
