package views

// Login is the form of /login: fields username and password.
type Login struct {
	Username string
	// NobodyYet is set before the first administrator was set up.
	NobodyYet bool
	// Error is why the last try failed, "" at first.
	Error string
}

// Setup is the form behind the one-time link: fields token, username, password
// and password_again. It makes the first administrator.
type Setup struct {
	// Action is where it posts to.
	Action string
	// Token is the link's, repeated in a hidden field.
	Token    string
	Username string
	// Errors by field name; "" is the whole form's.
	Errors map[string]string
}
