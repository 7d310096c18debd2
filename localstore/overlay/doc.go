// Package overlay looks after the overlay file systems that store directories can be: it tells whether one is mounted as
// its store says ([Mount.Check]), and has it mounted anew by the administrator's program ([Hook]). Mounting is not the
// store's business. What a store on an overlay is, package localstore tells.
package overlay
