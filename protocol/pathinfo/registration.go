package pathinfo

import (
	"strconv"

	"nixdaemon/protocol/storepath"
)

// RegistrationText lists paths with their references for a builder that asked
// for a reference graph: path, an empty line for the deriver, the number of
// references, the references. Builders rely on it
// (libstore/store-api.cc, makeValidityRegistration).
func RegistrationText(dir storepath.Dir, infos []*Info) string {
	var out []byte
	for _, info := range infos {
		out = appendPath(out, dir, info.Path)
		out = append(out, "\n\n"...)
		out = strconv.AppendInt(out, int64(len(info.References)), 10)
		out = append(out, '\n')
		for _, ref := range info.References {
			out = appendPath(out, dir, ref)
			out = append(out, '\n')
		}
	}
	return string(out)
}
