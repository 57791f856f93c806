package models

// Error codes of jobs that ended without a word of their agent's, beside those
// of the agent protocol. Every code that this server gives a job stands here or
// there: the pages have a cause and a remedy for each.
const (
	CodeExpired           = "expired"             // its host never came for it
	CodeHostSilent        = "host_silent"         // its host had it and fell silent
	CodeJournalLost       = "journal_lost"        // its agent no longer knows it
	CodeNoRepositoryBound = "no_repository_bound" // its host has no repository
	CodeStillBusy         = "still_busy"          // the group's last backup has not ended
)
