package story

import (
	"fmt"
	"strings"
)

// landmarks are in the story, in this order, whatever it is played on.
var landmarks = []string{
	"A gate starts on n1 and on n2", "gate of n1: idle: no reboot is pending", "kured on n1 sees: no such file", "gate of n2: idle",
	"n3 reboots", "soak (Soaking)", "soak: node n3 booted", "sentinel-gate --once", "STEP ", "Soaking",
	"The quiet time ends", "opens at", "open: every step passes", "kured on n1 sees: the file exists",
	"Now n2 needs a reboot", "gate of n2: closed", "n1", "kured on n2 sees: no such file",
	"n4 fails", "the file of n1 was gone", "closed: step", "n4 (Ready=False", "kured on n1 sees: no such file",
	"n4 is Ready again", "soak (Soaking)", "kured on n1 sees: the file exists",
	"An alert fires", "closed: step alerts", "EtcdNoLeader", "kured on n1 sees: no such file", "The alert is resolved", "kured on n1 sees: the file exists",
	"halt every gate", "the file of n1 was gone", "halted: INC-1234", "kured on n1 sees: no such file", "kured on n1 sees: the file exists",
	"kured on n1 acts", "gate of n1: idle", "n2 still waits", "soaking until", "kured on n2 sees: no such file",
	"it is the turn of n2", "kured on n2 sees: the file exists",
	"SIGKILL", "the file of n2 was gone", "the link is still there", "kured on n2 sees: no such file", "That was it",
}

// Complete returns an error if the text is not the whole story, in the order in which it is told.
func Complete(text string) error {
	rest := text
	for _, landmark := range landmarks {
		_, after, found := strings.Cut(rest, landmark)
		if !found {
			return fmt.Errorf("%q is missing, or comes too early, in:\n%s", landmark, text)
		}
		rest = after
	}
	return nil
}
