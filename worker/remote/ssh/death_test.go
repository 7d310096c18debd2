package ssh

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// deathVar names the variable that makes this program start a command, tell
// its number and wait to be killed.
const deathVar = "SSH_TEST_DEATH"

func TestMain(m *testing.M) {
	if os.Getenv(deathVar) == "" {
		os.Exit(m.Run())
	}
	a, err := ParseAuthority("localhost")
	if err != nil {
		panic(err)
	}
	master, err := New(Options{Authority: a})
	if err != nil {
		panic(err)
	}
	c, err := master.Start(context.Background(), []string{"sleep", "1000"})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Pid())
	select {}
}

// TestDeath kills whoever started a command that neither reads nor writes.
func TestDeath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with the one that started it")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), deathVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !zombie(pid); {
		if time.Now().After(end) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}
