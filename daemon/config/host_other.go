//go:build !linux && !darwin

package config

import "nixdaemon/worker/settings"

func detectPlatform(*settings.Environment) {}
