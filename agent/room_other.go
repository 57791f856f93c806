//go:build !linux

package agent

import "os"

func keepRoom(*os.File, int64) {}
