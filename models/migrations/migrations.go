// Package migrations embeds the SQL that makes the schema. Files are only ever
// added; what has shipped is never edited.
package migrations

import "embed"

// Files are named YYYYMMDDhhmmss_name.tx.up.sql; each runs in a transaction.
//
//go:embed *.sql
var Files embed.FS
