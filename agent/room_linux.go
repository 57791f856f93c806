package agent

import (
	"os"
	"syscall"
)

// keepRoom takes room on the disk for what will be appended to a file, where
// its filesystem can.
func keepRoom(f *os.File, size int64) {
	const keepSize = 1                                    // FALLOC_FL_KEEP_SIZE
	_ = syscall.Fallocate(int(f.Fd()), keepSize, 0, size) // a help where it is there
}
