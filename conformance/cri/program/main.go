// The program of critest's images. Its name says what it does: "pause" waits, "nonewprivs" tells its
// effective user, and all others are web servers, whose port is the argument.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// critest looks for these words of nginx in /proc/1/cmdline.
const master = ": master process"

func main() {
	name := filepath.Base(os.Args[0])
	switch name {
	case "pause":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
		<-ended
	case "nonewprivs":
		fmt.Printf("Effective uid: %d\n", os.Geteuid())
	case "nginx", "httpd":
		check(syscall.Exec(os.Args[0], []string{name + master, os.Args[1]}, os.Environ()))
	default:
		fmt.Println(name)
		check(os.WriteFile("/var/run/nginx.pid", fmt.Appendln(nil, os.Getpid()), 0o644))
		check(http.ListenAndServe(":"+os.Args[1], http.HandlerFunc(answer)))
	}
}

func answer(response http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(response, "main page")
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
