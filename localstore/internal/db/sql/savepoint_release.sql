release member
