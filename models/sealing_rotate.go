package models

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"resticfleet/agent/protocol"
)

// RotateKey seals everything in the database anew, in one transaction, and
// leaves the new key alone in the key file at path; the old ones move to
// OldKeys(path). Servers may run meanwhile, and need not be started again: they
// find the new key in the file, which holds it before the database needs it.
//
// The new key is the file's first line where the database isn't sealed by that
// one yet: somebody put it there because servers have copies of the file, or
// an earlier rotation was cut off. Otherwise it is made.
//
// It returns how many repositories' secrets were sealed anew. After an error
// that says so nothing in the database has changed.
func RotateKey(ctx context.Context, db *DB, path string) (int, error) {
	s, err := LoadSealer(path, false)
	if err != nil {
		return 0, err
	}
	if err := CheckSealer(ctx, db, s); err != nil {
		return 0, err
	}
	count := 0
	err = Tx(ctx, db, func(tx IDB) error {
		mark, err := holdMark(ctx, tx)
		if err != nil {
			return err
		}
		next, err := nextKey(path, nameOf(mark))
		if err != nil {
			return err
		}
		count, err = sealAnew(ctx, tx, s, next)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("nothing was sealed anew: %w", err)
	}
	return count, Tx(ctx, db, func(tx IDB) error {
		mark, err := holdMark(ctx, tx)
		if err != nil {
			return err
		}
		return retireKeys(path, nameOf(mark))
	})
}

// OldKeys is the file that keys go to when a rotation has replaced them: who
// has to go back to an older copy of the database needs its key.
func OldKeys(path string) string { return path + ".old" }

// holdMark keeps other rotations and everybody who seals waiting until the
// transaction ends. Whoever changes the key file holds it.
func holdMark(ctx context.Context, tx IDB) (mark []byte, err error) {
	if err := tx.QueryRowContext(ctx, "select sealed from sealing_check for update").Scan(&mark); err != nil {
		return nil, fmt.Errorf("sealing check: %w", err)
	}
	return mark, nil
}

// nextKey is the file's first key unless that is the current one already; then
// it is a new one, which is in the file when this returns.
func nextKey(path string, current keyName) (sealingKey, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return sealingKey{}, err
	}
	keys, err := readKeys(text)
	if err != nil || keys[0].name != current {
		return keys[0], err
	}
	for {
		line, err := GenerateKey()
		if err != nil {
			return sealingKey{}, err
		}
		key, err := readKey(line)
		if err != nil {
			return sealingKey{}, err
		}
		if !slices.ContainsFunc(keys, func(k sealingKey) bool { return k.name == key.name }) {
			return key, replaceKeyFile(path, line+"\n"+text)
		}
	}
}

// sealAnew moves the mark and everything that is sealed to another key.
func sealAnew(ctx context.Context, tx IDB, s *Sealer, next sealingKey) (int, error) {
	mark, err := next.seal(markPlace, markText)
	if err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, "update sealing_check set sealed = ?", mark); err != nil {
		return 0, fmt.Errorf("sealing check: %w", err)
	}
	var all []*HostRepository
	err = tx.NewSelect().Model(&all).Column("host_id", "password_sealed", "env_sealed", "maintenance_url", "maintenance_password_sealed", "maintenance_env_sealed").Order("host_id").For("update").Scan(ctx)
	if err != nil {
		return 0, fmt.Errorf("rotate key: %w", err)
	}
	for _, r := range all {
		if err := r.sealAnew(s, next); err != nil {
			return 0, err
		}
		if _, err := tx.NewUpdate().Model(r).Column("password_sealed", "env_sealed", "maintenance_password_sealed", "maintenance_env_sealed").WherePK().Exec(ctx); err != nil {
			return 0, fmt.Errorf("rotate key: %w", err)
		}
	}
	return len(all), nil
}

// sealAnew moves both of a host's credentials to another key.
func (r *HostRepository) sealAnew(s *Sealer, next sealingKey) error {
	secrets, err := r.Secrets(s)
	if err != nil {
		return fmt.Errorf("%w: store this host's repository again, then rotate again", err)
	}
	if err := r.seal(next, secrets); err != nil || !r.HasMaintenance() {
		return err
	}
	if secrets, err = r.MaintenanceSecrets(s); err != nil {
		return fmt.Errorf("%w: store this host's credentials for forget and prune again, or remove them, then rotate again", err)
	}
	return r.sealMaintenance(next, secrets)
}

// seal puts a host's secrets into its row.
func (r *HostRepository) seal(key sealingKey, secrets protocol.Secrets) (err error) {
	r.PasswordSealed, r.EnvSealed, err = key.sealSecrets(hostPlace(r.HostID), secrets)
	return err
}

// retireKeys leaves the current key alone in the file.
func retireKeys(path string, current keyName) error {
	text, err := readKeyFile(path)
	if err != nil {
		return err
	}
	var keep string
	var old []string
	for _, line := range keyLines(text) {
		key, err := readKey(line)
		if err != nil {
			return err
		}
		if key.name == current {
			keep = line
		} else {
			old = append(old, line)
		}
	}
	if keep == "" || len(old) == 0 {
		return nil
	}
	err = addOldKeys(OldKeys(path), old)
	if err == nil {
		err = replaceKeyFile(path, keep+"\n")
	}
	if err != nil {
		return fmt.Errorf("everything is sealed anew; %s keeps the old key until you take its line out: %w", path, err)
	}
	return nil
}

func addOldKeys(path string, lines []string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}
