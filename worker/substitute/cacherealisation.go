package substitute

import (
	"context"
	"errors"

	"nixdaemon/protocol/pathinfo"
)

// realisationPlace is where a binary cache has what an output became, in one of the two ways in which that is written.
type realisationPlace struct {
	name, key string
	keyed     bool // the object names the output, too (releases before 2.35)
}

func realisationPlaces(id pathinfo.DrvOutput) []realisationPlace {
	var places []realisationPlace
	if !id.DrvHash.IsZero() {
		places = append(places, realisationPlace{"realisations/" + id.HashID() + ".doi", id.HashID(), true})
	}
	if !id.DrvPath.IsZero() {
		base := id.DrvPath.Base()
		places = append(places, realisationPlace{"build-trace-v2/" + base + "/" + id.Output + ".doi", base + "^" + id.Output, false})
	}
	return places
}

// parse reads the object. What it says of the key does not count: it was found under that of the question.
func (p realisationPlace) parse(id pathinfo.DrvOutput, text string) (*pathinfo.Realisation, error) {
	if !p.keyed {
		return pathinfo.ParseRealisationValue(pathinfo.DrvOutput{DrvPath: id.DrvPath, Output: id.Output}, text)
	}
	r, err := pathinfo.ParseRealisation(text)
	if err != nil {
		return nil, err
	}
	r.ID = pathinfo.DrvOutput{DrvHash: id.DrvHash, Output: id.Output}
	return r, nil
}

// Realisation looks in the places of both generations.
func (c *Cache) Realisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	for _, place := range realisationPlaces(id) {
		r, err := c.realisationAt(ctx, a, id, place)
		if err != nil || r != nil {
			return r, err
		}
	}
	return nil, nil
}

// KnowsRealisation tells whether the answer is remembered, or can be read without a network.
func (c *Cache) KnowsRealisation(_ context.Context, a Asker, id pathinfo.DrvOutput) bool {
	if c.o.Local {
		return true
	}
	for _, place := range realisationPlaces(id) {
		text, known := c.o.Infos.Realisation(c.o.URI, place.key, ttls(a.Settings))
		if !known {
			return false
		}
		if text != "" {
			break
		}
	}
	return true
}

func (c *Cache) realisationAt(ctx context.Context, a Asker, id pathinfo.DrvOutput, place realisationPlace) (*pathinfo.Realisation, error) {
	text, asked, err := c.realisationText(ctx, a, place)
	if err != nil || text == "" {
		return nil, err
	}
	r, err := place.parse(id, text)
	if err != nil {
		return nil, errorf(err, "parse file '%s' as a realisation for key '%s': %s", place.name, place.key, err.Error())
	}
	if !c.o.Local && asked {
		c.o.Infos.SetRealisation(c.o.URI, place.key, text)
	}
	return r, nil
}

// realisationText gives the object, "" if there is none. asked says that it was not remembered.
func (c *Cache) realisationText(ctx context.Context, a Asker, place realisationPlace) (text string, asked bool, err error) {
	if !c.o.Local {
		if text, known := c.o.Infos.Realisation(c.o.URI, place.key, ttls(a.Settings)); known {
			return text, false, nil
		}
	}
	text, err = c.text(ctx, a, place.name)
	if errors.Is(err, ErrNoObject) {
		if !c.o.Local {
			c.o.Infos.SetRealisation(c.o.URI, place.key, "")
		}
		return "", true, nil
	}
	return text, true, err
}

// PutRealisation writes down what an output became, in the way or ways in which its key can be written.
func (c *Cache) PutRealisation(ctx context.Context, a Asker, r *pathinfo.Realisation) error {
	for _, place := range realisationPlaces(r.ID) {
		text := r.ValueJSON()
		if place.keyed {
			text = r.HashJSON()
		}
		if err := c.o.Objects.Put(ctx, a, place.name, Text(text, "application/json")); err != nil {
			return err
		}
		if !c.o.Local {
			c.o.Infos.SetRealisation(c.o.URI, place.key, text)
		}
	}
	return nil
}
