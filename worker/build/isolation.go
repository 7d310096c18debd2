package build

import (
	"path/filepath"
	"slices"

	"nixdaemon/protocol/activity"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// checkSandbox decides whether the builder is isolated (unix/build/derivation-builder.cc, makeDerivationBuilder). A
// machine that cannot do it is a reason to go without, if that is the setting; but never in a diverted store, where
// the builder would write to the wrong place (refused by upstream from 2.36 on).
func (a *attempt) checkSandbox() error {
	if a.external != nil {
		return a.checkExternal()
	}
	diverted := string(a.dir) != a.store.RealDir()
	if diverted && !canIsolate {
		return errorf("building using a diverted store is not supported on this platform")
	}
	wanted, err := a.wantsSandbox()
	if err != nil {
		return err
	}
	if wanted && byProfile {
		return a.checkProfile()
	}
	a.isolated = wanted || diverted
	if a.isolated && !canIsolate {
		return errorf("sandboxing builds is not supported on this platform")
	}
	if a.isolated {
		if err := a.checkNamespaces(diverted); err != nil {
			return err
		}
	}
	if !a.isolated && a.usesUIDRange() {
		return errorf("feature 'uid-range' is only supported in sandboxed builds")
	}
	return nil
}

// wantsSandbox is what the settings and the derivation ask for.
func (a *attempt) wantsSandbox() (bool, error) {
	switch a.set.Sandbox {
	case settings.SandboxTrue:
		if a.j.options.NoChroot {
			return false, errorf("derivation '%s' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'", a.dir.Print(a.j.drvPath))
		}
		return true, nil
	case settings.SandboxRelaxed:
		return a.kind.IsSandboxed && !a.j.options.NoChroot, nil
	}
	return false, nil
}

func (a *attempt) checkNamespaces(diverted bool) error {
	reason := a.o.Launcher.Support().Namespaces
	switch {
	case reason == nil:
		return nil
	case diverted:
		return errorf("this system does not support the kernel namespaces that are required for sandboxing, which is required for building in a diverted store")
	case !a.set.SandboxFallback:
		return errorf("this system does not support the kernel namespaces that are required for sandboxing; use '--no-sandbox' to disable sandboxing")
	}
	a.j.feed.Message(activity.Debug, "auto-disabling sandboxing because the prerequisite namespaces are not available")
	a.fallback.Do(func() {
		a.o.Log.Warn().Err(reason).Msg("builds are not isolated, since this machine cannot; sandbox-fallback = false makes that an error")
	})
	a.isolated = false
	return nil
}

func (a *attempt) usesUIDRange() bool {
	return slices.Contains(a.j.options.RequiredSystemFeatures, "uid-range")
}

// sandboxIDs are who the builder is inside (linux-derivation-builder.cc, sandboxUid, startChild). Without user
// namespaces it is who it is outside, which must not be the daemon.
func (a *attempt) sandboxIDs() (ids *sandbox.IDMap, uid, gid uint32, err error) {
	count := a.idCount()
	if a.usesUIDRange() && count < uidRange {
		return nil, 0, 0, errorf("feature 'uid-range' requires the setting '%s' to be enabled", "auto-allocate-uids")
	}
	switch {
	case a.o.Launcher.Support().UserNamespaces != nil && a.user == nil:
		return nil, 0, 0, errorf("cannot perform a sandboxed build because user namespaces are not enabled; check /proc/sys/user/max_user_namespaces")
	case a.o.Launcher.Support().UserNamespaces != nil:
		return nil, a.user.UID, a.user.GID, nil
	case count > 1:
		return &sandbox.IDMap{Count: count}, 0, 0, nil
	}
	return &sandbox.IDMap{UID: 1000, GID: 100, Count: 1}, 1000, 100, nil
}

// uidRange is how many ids a builder has that asks for the feature uid-range.
const uidRange = 65536

// isolation describes the builder's world. The chroot is there already.
func (a *attempt) isolation() (*sandbox.Isolation, error) {
	ids, uid, gid, err := a.sandboxIDs()
	if err != nil {
		return nil, err
	}
	paths, err := a.pathsInSandbox()
	if err != nil {
		return nil, err
	}
	a.root = &rootPlan{storeDir: string(a.dir), realStoreDir: a.store.RealDir(), inner: a.chroot.inner, tmp: a.chroot.tmp,
		buildDir: a.tmp.inside, inputs: a.inputs, uid: uid, gid: gid, manyIDs: a.idCount() > 1, network: !a.kind.IsSandboxed}
	plan := a.root
	for _, o := range a.outputs {
		if !o.known.IsZero() {
			plan.outputs = append(plan.outputs, o.known)
		}
	}
	if a.drv.IsBuiltin() && a.o.BuiltinCommand != nil {
		if plan.builtin, err = filepath.EvalSymlinks(a.o.BuiltinCommand("")[0]); err != nil {
			return nil, err
		}
	}
	if err := a.addHost(plan, paths); err != nil {
		return nil, err
	}
	if a.chroot.assembled != nil {
		plan.assembly, plan.assembled = a.chroot.assembled.mounts, a.chroot.assembled.names
	}
	entries, err := a.addMade(plan.entries())
	if err != nil {
		return nil, err
	}
	return &sandbox.Isolation{Root: a.chroot.mount, Entries: entries, IDs: ids, ShareNetwork: plan.network,
		DropGroups: a.set.RequireDropSupplementary}, nil
}
