package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// place tells a journal's home from that of its copy: the machine, as its
// system and its firmware name it, and the folder's inode. The device number
// is left out, since it moves at reboots. What could not be read is empty and
// says nothing.
type place struct {
	Machine  string `json:"machine,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Inode    uint64 `json:"inode,omitempty"`
}

func placeOf(dir string) place {
	p := place{Machine: fingerprint("/etc/machine-id"), Firmware: fingerprint("/sys/class/dmi/id/product_uuid")}
	var info syscall.Stat_t
	if syscall.Stat(dir, &info) == nil {
		p.Inode = info.Ino
	}
	return p
}

// bootID names the start of the kernel that this agent runs on, which no two
// machines share however alike their disks are. Containers have their host's, so
// that one which is started anew is no new start, and copies on one host are told
// apart by their place alone. Empty where the system has none, as outside Linux:
// the time of the boot would not do, since clocks are set.
func bootID() string { return fingerprint("/proc/sys/kernel/random/boot_id") }

// fingerprint stands for a file's content, which is nobody's business: a
// machine id is to be kept confidential.
func fingerprint(path string) string {
	raw, err := os.ReadFile(path)
	content := strings.TrimSpace(string(raw))
	if err != nil || content == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("resticfleet journal " + content))
	return hex.EncodeToString(sum[:8])
}

// differs says in words what tells two places apart, "" for nothing.
func (p place) differs(now place) string {
	switch {
	case p.Machine != "" && now.Machine != "" && p.Machine != now.Machine:
		return "the machine's id is another"
	case p.Firmware != "" && now.Firmware != "" && p.Firmware != now.Firmware:
		return "the machine's firmware has another id"
	case p.Inode != 0 && now.Inode != 0 && p.Inode != now.Inode:
		return fmt.Sprintf("its folder is another (inode %d, was %d)", now.Inode, p.Inode)
	}
	return ""
}

// and fills in what p could not read.
func (p place) and(before place) place {
	if p.Machine == "" {
		p.Machine = before.Machine
	}
	if p.Firmware == "" {
		p.Firmware = before.Firmware
	}
	return p
}
