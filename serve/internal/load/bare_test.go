package load_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"

	"spos/internal/native"
	"spos/internal/ort"
	"spos/serve/internal/load"
)

// The bare server is the least that any server can cost which runs in a process of its own: it takes the bytes of a
// tensor from a connection, runs the model on them and answers with the bytes of the output. No protocol, no checks,
// no queue. It is this test program, started with the file of a model in its environment.
const bareModel = "SPOS_BARE_MODEL"

func serveBare(file string) error {
	path, err := native.ONNXRuntime()
	if err != nil {
		return err
	}
	rt, err := ort.Open(path)
	if err != nil {
		return err
	}
	session, err := rt.OpenSession(file, ort.Options{})
	if err != nil {
		return err
	}
	in, err := ort.New(ort.Float32, 1, 3, 224, 224)
	if err != nil {
		return err
	}
	f, err := session.Fix([]ort.Tensor{in}, make([]ort.Tensor, 1))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Println("msg=serving address=" + ln.Addr().String()); err != nil {
		return err
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		for {
			if _, err = io.ReadFull(conn, in.Data); err == nil {
				err = f.Run()
			}
			if err == nil {
				_, err = conn.Write(f.Outputs()[0].Data)
			}
			if err != nil {
				break // the next client
			}
		}
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
}

// bare starts the server and returns a client of it.
func bare(t testing.TB, file string, input []byte, answer int) load.Dial {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self)
	cmd.Env = append(os.Environ(), bareModel+"="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it knows no other end
		_ = cmd.Wait()
	})
	var addr string
	if _, err := fmt.Fscanf(out, "msg=serving address=%s\n", &addr); err != nil {
		t.Fatal(err)
	}
	return func() (load.Client, error) {
		conn, err := net.Dial("tcp", addr)
		return &bareClient{conn, input, make([]byte, answer)}, err
	}
}

type bareClient struct {
	net.Conn
	input, answer []byte
}

func (c *bareClient) Do() (load.Outcome, error) {
	_, err := c.Write(c.input)
	if err == nil {
		_, err = io.ReadFull(c, c.answer)
	}
	return load.Answered, err
}
